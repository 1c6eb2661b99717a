"""Training runs that several files in `configs/` share, each with the values of its hardware."""

from pavdm_jax.config import ModelConfig
from pavdm_jax.diffusion.objectives import ProgressiveDiffusion
from pavdm_jax.training.config import Objective, OptimizerConfig, Stage, TrainConfig, VideoData


def open_sora_finetune(
    output: str, batch_size: int, mesh: str, remat: str = "attention", objective: Objective | None = None
) -> TrainConfig:
    """A finetune of Open-Sora 1.2 XL/2 on clips of 119 frames (35 latent frames) at 240p, its text layers frozen.

    Learning rate, epsilon, warm-up, clipping and EMA are the reference's; the number of steps is ours.

    Args:
      output: the run's folder.
      batch_size: clips of a step, over all chips.
      mesh: the chips' layout, such as "data=8,fsdp=16".
      remat: what is computed again in the backward pass, see `TrainConfig.remat`.
      objective: None for the paper's progressive levels.
    """
    objective = ProgressiveDiffusion() if objective is None else objective
    stage = Stage(
        "progressive" if isinstance(objective, ProgressiveDiffusion) else "finetune",
        objective,
        VideoData("clips.csv", frames=119),
        train=("stdit3",),
        freeze=("stdit3/caption_in", "stdit3/caption_out", "stdit3/null_caption"),
        steps=10_000,
        batch_size=batch_size,
        optimizer=OptimizerConfig(1e-4, warmup_steps=1000, decay=False),
    )
    return TrainConfig(
        model=ModelConfig(),
        init_from="checkpoints/open-sora-1.2",
        output=output,
        stages=(stage,),
        compute_dtype="bfloat16",
        remat=remat,
        mesh=mesh,
    )
