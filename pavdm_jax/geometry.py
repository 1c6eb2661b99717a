"""Pixel frames ↔ latent frames ↔ chunks, and pixels ↔ latent cells.

A video is coded in *micro clips*, independently of each other (17 frames ↔ 5 latent frames in Open-Sora's VAE), and is
generated in *chunks* of `WindowConfig.chunk_size` latent frames. Latent frames that have left the window are decoded as
soon as they fill a micro clip. Wan's VAE is causal: a video is one micro clip without end (1 + 4 (n - 1) frames ↔ n
latent frames), and each latent frame can be decoded when it comes.
"""

import itertools
import math

from pavdm_jax.errors import ConfigError
from pavdm_jax.families import AnyModelConfig, AnyVAEConfig

# --- time -------------------------------------------------------------------------------------------------------------


def latent_frames(num_frames: int, vae: AnyVAEConfig) -> int:
    """Latent frames of a clip of `num_frames` pixel frames: 17 → 5, 1 → 1, 20 → 6.

    A remainder of r frames behind the last whole micro clip takes ceil(r / 4) latent frames. Source: Open-Sora
    opensora/models/vae/vae.py, `get_latent_size`.

    Raises:
      ConfigError: `num_frames` is below 1.
    """
    if num_frames < 1:
        raise ConfigError(f"a clip of {num_frames} frames cannot be coded; it needs at least 1")
    whole, rest = divmod(num_frames, vae.micro_frames)
    return whole * vae.micro_latents + math.ceil(rest / vae.time_downsample)


def least_frames(latents: int, vae: AnyVAEConfig) -> int:
    """The pixel frames of the shortest clip that has `latents` latent frames: 5 → 17, 35 → 119, 1 → 1, 7 → 22."""
    whole, rest = divmod(latents, vae.micro_latents)
    return whole * vae.micro_frames + ((rest - 1) * vae.time_downsample + 1 if rest else 0)


def decoded_frames(latents: int, vae: AnyVAEConfig) -> int:
    """The pixel frames of the shortest clip that has `latents` latent frames and can be decoded whole.

    Of Open-Sora's VAE these are whole micro clips: 5 → 17, 7 → 34; of Wan's, which is causal, 5 → 17, 7 → 25.
    """
    return least_frames(_whole(latents, vae), vae)


def begin_of(latent: int, vae: AnyVAEConfig) -> int:
    """The number of the first pixel frame that a latent frame is about, both from 0: of Open-Sora's VAE 1 → 1, 5 → 17,
    7 → 22; of Wan's 1 → 1, 5 → 17, 7 → 25."""
    rest = latent % vae.decoded_together
    return least_frames(latent - rest, vae) + (1 + (rest - 1) * vae.time_downsample if rest else 0)


def decodable_latents(num_frames: int, vae: AnyVAEConfig) -> int:
    """Latent frames that the beginning of a clip has, as far as it can be decoded whole: 17 → 5, 33 → 5 or 9."""
    return latent_frames(num_frames, vae) // vae.decoded_together * vae.decoded_together if num_frames else 0


def _whole(latents: int, vae: AnyVAEConfig) -> int:
    return -(-latents // vae.decoded_together) * vae.decoded_together


def new_latents(num_frames: int, vae: AnyVAEConfig, known: int = 0) -> int:
    """Latent frames to generate for `num_frames` pixel frames behind `known` latent frames.

    What is decoded beyond these is cut off.

    Raises:
      ConfigError: `num_frames` is below 1.
    """
    if num_frames < 1:
        raise ConfigError(f"a video of {num_frames} frames cannot be made; ask for at least 1")
    micro_clips, rest = divmod(decoded_frames(known, vae) + num_frames, vae.micro_frames)
    # Of the last, incomplete one, the latent frame that holds the last frame: the first holds one, the others four.
    latents = micro_clips * vae.micro_latents + (1 - (1 - rest) // vae.time_downsample if rest else 0)
    return _whole(latents, vae) - _whole(known, vae)


def window_frames(config: AnyModelConfig) -> int:
    """Pixel frames of the shortest clip that fills the window and can be decoded whole."""
    return decoded_frames(config.window.window_size, config.vae)


def first_frames(vae: AnyVAEConfig) -> int:
    """Pixel frames of a micro clip's first latent frame, the others' being `time_downsample`: 1 of 17 ↔ 5, 0 of 16 ↔ 5.

    Where it has none, that of a whole micro clip stands for padding, which a shorter clip does not have.
    """
    return vae.micro_frames - (vae.micro_latents - 1) * vae.time_downsample


def check_context(num_frames: int, vae: AnyVAEConfig) -> int:
    """Latent frames of a context of `num_frames` pixel frames, which must end where a latent frame ends.

    Raises:
      ConfigError: the context ends inside a latent frame; the message names the nearest possible numbers.
    """
    step, first = vae.time_downsample, first_frames(vae)

    def possible(frames: int) -> bool:
        rest = frames % vae.micro_frames
        return rest == 0 or (first > 0 and (rest - first) % step == 0)

    if not possible(num_frames):
        below = next((n for n in range(num_frames - 1, 0, -1) if possible(n)), None)
        above = next(n for n in itertools.count(num_frames + 1) if possible(n))
        near = f"{below} or {above}" if below else str(above)
        raise ConfigError(f"context_frames {num_frames} ends inside a latent frame; use {near}")
    return latent_frames(num_frames, vae)


def check_clip(num_frames: int, vae: AnyVAEConfig) -> None:
    """Check that a clip of `num_frames` pixel frames can be decoded whole.

    Raises:
      ConfigError: it cannot; the message names the nearest possible numbers.
    """
    latents = latent_frames(num_frames, vae)
    if decoded_frames(latents, vae) != num_frames:
        possible = {decoded_frames(n, vae) for n in range(1, latents + vae.decoded_together + 1)}
        nearest = (max((n for n in possible if n < num_frames), default=0), min(n for n in possible if n > num_frames))
        near = " or ".join(str(n) for n in nearest if n)
        raise ConfigError(f"clip_frames {num_frames} cannot be decoded whole; use {near}")


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


def latent_size(height: int, width: int, vae: AnyVAEConfig) -> tuple[int, int]:
    """Latent rows and columns of a frame of `height` × `width` pixels, rounded down: 240×426 → 30×53."""
    return height // vae.downsample, width // vae.downsample


def decoded_size(height: int, width: int, vae: AnyVAEConfig) -> tuple[int, int]:
    """Height and width in pixels that the VAE decodes for a frame of `height` × `width`: 240×426 → 240×424."""
    rows, columns = latent_size(height, width, vae)
    return rows * vae.downsample, columns * vae.downsample


def check_size(height: int, width: int, config: AnyModelConfig) -> None:
    """Check that frames of `height` × `width` pixels can be made.

    Raises:
      ConfigError: a side is no positive multiple of the latent cell; the message names the nearest sizes.
    """
    unit = config.vae.downsample
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
