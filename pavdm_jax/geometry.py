"""Pixel frames ↔ latent frames ↔ chunks, and pixels ↔ latent cells.

A video is coded in *micro clips*, independently of each other (17 frames ↔ 5 latent frames in Open-Sora's VAE), and is
generated in *chunks* of `WindowConfig.chunk_size` latent frames. Latent frames that have left the window are decoded as
soon as they fill a micro clip.
"""

import math

from pavdm_jax.config import ModelConfig, VAEConfig
from pavdm_jax.errors import ConfigError

# --- time -------------------------------------------------------------------------------------------------------------


def latent_frames(num_frames: int, vae: VAEConfig) -> int:
    """Latent frames of a clip of `num_frames` pixel frames: 17 → 5, 1 → 1, 20 → 6.

    A remainder of r frames behind the last whole micro clip takes ceil(r / 4) latent frames. Source: Open-Sora
    opensora/models/vae/vae.py, `get_latent_size`.

    Raises:
      ConfigError: `num_frames` is below 1.
    """
    if num_frames < 1:
        raise ConfigError(f"a clip of {num_frames} frames cannot be coded; it needs at least 1")
    whole, rest = divmod(num_frames, vae.micro_frames)
    return whole * vae.micro_latents + math.ceil(rest / vae.temporal.downsample)


def least_frames(latents: int, vae: VAEConfig) -> int:
    """The pixel frames of the shortest clip that has `latents` latent frames: 5 → 17, 35 → 119, 1 → 1, 7 → 22."""
    whole, rest = divmod(latents, vae.micro_latents)
    return whole * vae.micro_frames + ((rest - 1) * vae.temporal.downsample + 1 if rest else 0)


def num_chunks(num_frames: int, config: ModelConfig) -> int:
    """Chunks to generate for `num_frames` pixel frames; what is decoded beyond these is cut off.

    Raises:
      ConfigError: `num_frames` is below 1.
    """
    if num_frames < 1:
        raise ConfigError(f"a video of {num_frames} frames cannot be made; ask for at least 1")
    micro_clips = -(-num_frames // config.vae.micro_frames)
    return -(-micro_clips * config.vae.micro_latents // config.window.chunk_size)


def window_frames(config: ModelConfig) -> int:
    """Pixel frames of the shortest clip of whole micro clips that fills the window."""
    return -(-config.window.window_size // config.vae.micro_latents) * config.vae.micro_frames


def check_context(num_frames: int, vae: VAEConfig) -> int:
    """Latent frames of a context of `num_frames` pixel frames, which must end where a latent frame ends.

    Raises:
      ConfigError: the context ends inside a latent frame; the message names the nearest possible numbers.
    """
    step, rest = vae.temporal.downsample, num_frames % vae.micro_frames
    first = vae.micro_frames - (vae.micro_latents - 1) * step  # frames of a micro clip's first latent frame
    if rest and (rest - first) % step:
        near = [n for n in range(num_frames - step, num_frames + step + 1) if n > 0]
        near = [n for n in near if not n % vae.micro_frames or not (n % vae.micro_frames - first) % step]
        raise ConfigError(f"context_frames {num_frames} ends inside a latent frame; use {' or '.join(map(str, near))}")
    return latent_frames(num_frames, vae)


def seconds_to_frames(seconds: float, fps: float) -> int:
    """The number of frames, at least 1, whose length is nearest to `seconds` at `fps` frames per second.

    Raises:
      ConfigError: one of them is no positive number.
    """
    if not math.isfinite(fps) or not fps > 0:
        raise ConfigError(f"fps {fps} must be a positive number")
    if not math.isfinite(seconds * fps) or not seconds > 0:
        raise ConfigError(f"seconds {seconds} must be a positive number, and no astronomical one")
    return max(1, round(seconds * fps))


# --- space ------------------------------------------------------------------------------------------------------------


def latent_size(height: int, width: int, vae: VAEConfig) -> tuple[int, int]:
    """Latent rows and columns of a frame of `height` × `width` pixels, rounded down: 240×426 → 30×53."""
    return height // vae.spatial.downsample, width // vae.spatial.downsample


def decoded_size(height: int, width: int, vae: VAEConfig) -> tuple[int, int]:
    """Height and width in pixels that the VAE decodes for a frame of `height` × `width`: 240×426 → 240×424."""
    rows, columns = latent_size(height, width, vae)
    return rows * vae.spatial.downsample, columns * vae.spatial.downsample


def check_size(height: int, width: int, config: ModelConfig) -> None:
    """Check that frames of `height` × `width` pixels can be made.

    Raises:
      ConfigError: a side is no positive multiple of the latent cell; the message names the nearest sizes.
    """
    unit = config.vae.spatial.downsample
    smaller, larger = (
        tuple(max(unit, round_to(side / unit) * unit) for side in (height, width))
        for round_to in (math.floor, math.ceil)
    )
    if not smaller == larger == (height, width):
        near = " or ".join(f"{h}x{w}" for h, w in dict.fromkeys((smaller, larger)))
        raise ConfigError(
            f"size {height}x{width} (height x width) is impossible: both must be positive multiples of {unit}; the "
            f"nearest: {near}"
        )
