"""The noise levels and the solver of each family, in the form in which the sampler takes them.

Open-Sora shifts an even grid of levels by the size and length of the video, and follows the velocity by Euler's method.
The family of Wan 2.1 has one noise shift for all sizes, and UniPC.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from pavdm_jax.config import ModelConfig
from pavdm_jax.diffusion.flow import shift_levels
from pavdm_jax.diffusion.noise_levels import level_table, uniform_levels
from pavdm_jax.diffusion.solvers import EULER, Solver, UniPC
from pavdm_jax.diffusion.wan_levels import wan_levels, window_table
from pavdm_jax.errors import ConfigError
from pavdm_jax.families import AnyModelConfig


def window_levels(config: AnyModelConfig, told_size: tuple[int, int]) -> np.ndarray:
    """The levels of a full window, [steps_per_shift, noisy_chunks] float32 (see `noise_levels.level_table`).

    Of a window whose chunks wait, those of one chunk: [steps + 1] float32, falling to 0.

    Args:
      config: with the window.
      told_size: height and width in pixels that the network is told.
    """
    window = config.window
    if window.lag is not None:
        return np.asarray(clip_levels(config, window.steps, told_size, window.seen_at_once))
    if isinstance(config, ModelConfig):
        table = shift_levels(level_table(window), *told_size, window.seen_at_once, config.noise_base_size)
        return np.asarray(table)
    return window_table(wan_levels(window.steps, config.noise_shift), window.noisy_chunks)


def guided_frames(config: AnyModelConfig, told_size: tuple[int, int]) -> int | None:
    """Latent frames at the end of the window that guidance can be for; None: all (see `WindowConfig.guidance_above`).

    Args:
      config, told_size: see `window_levels`.
    """
    window = config.window
    if window.guidance_above == 0:
        return None
    if window.lag is not None:  # all of them, at the start, while they wait
        return window.window_size
    highest = window_levels(config, told_size).max(axis=0)
    return int(np.sum(highest > window.guidance_above)) * window.chunk_size


def repeated_frames(config: AnyModelConfig, told_size: tuple[int, int]) -> int | None:
    """Latent frames at the end of the window that every step predicts; None: all (see `WindowConfig.reuse_below`).

    Args:
      config, told_size: see `window_levels`.

    Raises:
      ConfigError: they are all, because no chunk is ever at so low a level; or the window is one that cannot reuse.
    """
    window = config.window
    if window.reuse_below is None:
        return None
    others = {"guidance_above": window.guidance_above, "partition": window.partition, "lag": window.lag}
    for name, value in others.items():
        if value:
            raise ConfigError(
                f"reuse_below {window.reuse_below} cannot be combined with {name} {value}; leave one of them out"
            )
    if window.steps_per_shift == 1:
        raise ConfigError(
            f"reuse_below {window.reuse_below} has nothing to use again where a shift is one step; give more than "
            f"{window.steps} steps, or leave it out"
        )
    highest = window_levels(config, told_size).max(axis=0)
    frames = int(np.sum(highest > window.reuse_below)) * window.chunk_size
    if frames == window.window_size:
        raise ConfigError(
            f"reuse_below {window.reuse_below} is below every level of this window, whose first chunk begins a shift "
            f"at {highest.min():.2f}; give at least that, or leave it out"
        )
    return frames


def clip_levels(config: AnyModelConfig, steps: int, told_size: tuple[int, int], latent_frames: int) -> jax.Array:
    """The levels of a clip of one level before each step and after the last: float32 [steps + 1], falling to 0."""
    if isinstance(config, ModelConfig):
        return shift_levels(uniform_levels(steps), *told_size, latent_frames, config.noise_base_size)
    return jnp.asarray(wan_levels(steps, config.noise_shift))


def noise_base_size(config: AnyModelConfig, latent_frames: int) -> float:
    """The size of a square frame, in pixels, of which one latent frame has unshifted levels (see `shift_levels`).

    It makes the shift of clips of `latent_frames`, of the config's height and width, the family's. Training uses it.
    """
    if isinstance(config, ModelConfig):
        return config.noise_base_size
    return math.sqrt(config.height * config.width * latent_frames) / config.noise_shift


def window_solver(config: AnyModelConfig) -> Solver:
    """What moves the window's latents along their velocity."""
    if isinstance(config, ModelConfig) or config.solver == "euler":
        return EULER
    # As the published pipelines compute it.
    return UniPC.of(wan_levels(config.window.steps, config.noise_shift), overwritten_start=True)
