"""Sample videos of a model during training."""

from pathlib import Path

import jax

from pavdm_jax.distributed.placement import on_first_device
from pavdm_jax.generation.pipeline import generate
from pavdm_jax.models.model import SAMPLING_PARTS, Model, part_name
from pavdm_jax.training.config import SampleConfig
from pavdm_jax.video.images import write_gif
from pavdm_jax.video.writer import VideoWriter


def sample_videos(model: Model, config: SampleConfig, dtype: str, folder: Path, step: int) -> list[Path]:
    """Make a video of each prompt, with the same seed at every step: `folder/STEP-NUMBER.mp4`, and a GIF beside it.

    The videos are made one after another, in the precision `dtype`, as they have to fit beside the training.

    Returns:
      The paths of the GIFs.

    Raises:
      ConfigError: a prompt cannot be used, or a file cannot be written.
    """
    parts = [part_name(part, model.config) for part in SAMPLING_PARTS]
    # The text encoder may be too large for an accelerator beside the training, so it stays on the host.
    on_device = {part: jax.device_put(model.params[part], on_first_device()) for part in parts}
    model = model.replace(params={**model.params, **on_device})
    fps, gifs = model.config.fps, []
    for number, prompt in enumerate(config.prompts):
        video = generate(model, prompt, config.frames, seed=config.seed, method=config.method, dtype=dtype)
        path = folder / f"{step:07}-{number}.mp4"
        with VideoWriter(path, fps) as writer:
            writer.write(video)
        gifs.append(path.with_suffix(".gif"))
        write_gif(gifs[-1], [video], fps)
    return gifs
