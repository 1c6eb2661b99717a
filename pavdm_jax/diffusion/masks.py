"""Mask strategies: which frames of a training clip stay clean.

With them one model learns to continue a clip, to precede it, and to fill gaps. Upstream: Open-Sora
opensora/utils/train_utils.py, `MaskGenerator`. Here each sample draws its own strategy, inside jit.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from pavdm_jax.errors import ConfigError


@dataclass(frozen=True)
class Masks:
    """The probability of each mask strategy, each in 0..1 and together at most 1; the rest keeps no frame clean.

    The defaults are those of Open-Sora 1.2 (configs/opensora-v1-2/train/, `mask_ratios`).

    Raises:
      ConfigError: a probability out of range, or a sum above 1.
    """

    random: float = 0.01  # each frame, with a probability that is drawn from 0.1 to 0.9 for the clip
    interpolate: float = 0.002  # every second frame
    quarter_random: float = 0.002  # from one frame to a quarter of the clip, anywhere
    quarter_head: float = 0.002  # the same at the beginning
    quarter_tail: float = 0.002  # at the end
    quarter_head_tail: float = 0.002  # at both
    image_head: float = 0.22  # the first frame
    image_tail: float = 0.005  # the last frame
    image_head_tail: float = 0.005  # both
    context: float = 0.0  # the first `context_latents` frames, as of a clip that continues another one ("replacement")
    context_latents: int = 5  # latent frames; 5 are the 17 pixel frames of `ClipConfig.context_frames`

    def __post_init__(self) -> None:
        chances = {name: getattr(self, name) for name in MASK_STRATEGIES}
        if self.context_latents < 1:
            raise ConfigError(f"context_latents of the masks must be at least 1, not {self.context_latents}")
        for name, chance in chances.items():
            if not 0 <= chance <= 1:
                raise ConfigError(f"the chance of the mask strategy {name} must be from 0 to 1, not {chance}")
        if sum(chances.values()) > 1 + 1e-6:
            raise ConfigError(
                f"the chances of the mask strategies are {sum(chances.values()):g} together; give at most 1"
            )


def masks_of(context_latents: int = Masks.context_latents, **chances: float) -> Masks:
    """Masks of these strategies alone: `masks_of(context=0.75)`."""
    return Masks(**dict.fromkeys(MASK_STRATEGIES, 0.0) | chances, context_latents=context_latents)


Strategy = Callable[[jax.Array, jax.Array, jax.Array, Masks], jax.Array]
"""(key, positions [t], number of frames [], settings) -> [t] bool, True where the frame stays clean."""


def _random(key: jax.Array, positions: jax.Array, length: jax.Array, masks: Masks) -> jax.Array:
    """Each frame, with a probability that is drawn from 0.1 to 0.9 for the clip."""
    share_key, frame_key = jax.random.split(key)
    share = jax.random.uniform(share_key, minval=0.1, maxval=0.9)
    return jax.random.uniform(frame_key, positions.shape) < share


def _interpolate(key: jax.Array, positions: jax.Array, length: jax.Array, masks: Masks) -> jax.Array:
    """Every second frame, beginning with the first or the second one."""
    return positions % 2 == jax.random.randint(key, (), 0, 2)


def _image(key: jax.Array, length: jax.Array, masks: Masks) -> jax.Array:
    return jnp.int32(1)


def _context(key: jax.Array, length: jax.Array, masks: Masks) -> jax.Array:
    return jnp.int32(masks.context_latents)


def _quarter(key: jax.Array, length: jax.Array, masks: Masks) -> jax.Array:
    """From one frame to a quarter of the clip."""
    return jax.random.randint(key, (), 1, jnp.maximum(length // 4, 1) + 1)


def _run(size: Callable[[jax.Array, jax.Array, Masks], jax.Array], *places: str) -> Strategy:
    """Runs of `size` frames at the "head", the "tail", or a "random" place of the clip."""

    def strategy(key: jax.Array, positions: jax.Array, length: jax.Array, masks: Masks) -> jax.Array:
        size_key, start_key = jax.random.split(key)
        run = size(size_key, length, masks)
        starts = {"head": 0, "tail": length - run, "random": jax.random.randint(start_key, (), 0, length - run + 1)}
        clean = jnp.zeros(positions.shape, bool)
        for place in places:
            clean |= (positions >= starts[place]) & (positions < starts[place] + run)
        return clean

    return strategy


MASK_STRATEGIES: dict[str, Strategy] = {
    "random": _random,
    "interpolate": _interpolate,
    "quarter_random": _run(_quarter, "random"),
    "quarter_head": _run(_quarter, "head"),
    "quarter_tail": _run(_quarter, "tail"),
    "quarter_head_tail": _run(_quarter, "head", "tail"),
    "image_head": _run(_image, "head"),
    "image_tail": _run(_image, "tail"),
    "image_head_tail": _run(_image, "head", "tail"),
    "context": _run(_context, "head"),
}
"""The strategies by the names of `Masks`, in the same order."""


def sample_masks(
    key: jax.Array,
    masks: Masks,
    lengths: jax.Array,
    frames: int,
) -> jax.Array:
    """Draw a strategy for each clip.

    A strategy that would keep all of a (short) clip clean leaves its last frame noisy, so an image is always noisy.

    Args:
      key: one PRNG key.
      masks: the probabilities of the strategies.
      lengths: [b] int32, latent frames of each clip, 1..t.
      frames: t, the latent frames of the batch, padding included.

    Returns:
      [b, t] bool: True in frames that are noised and count in the loss; False in clean frames and in the padding.
    """
    chances = jnp.array([getattr(masks, name) for name in MASK_STRATEGIES])
    positions = jnp.arange(frames)

    def draw(sample_key: jax.Array, length: jax.Array) -> jax.Array:
        which_key, strategy_key = jax.random.split(sample_key)
        options = [strategy(strategy_key, positions, length, masks) for strategy in MASK_STRATEGIES.values()]
        options = jnp.stack([*options, jnp.zeros(frames, bool)])
        which = jnp.searchsorted(jnp.cumsum(chances), jax.random.uniform(which_key), side="right")
        valid = positions < length
        noisy = valid & ~options[which]
        return jnp.where(jnp.any(noisy), noisy, positions == length - 1)

    return jax.vmap(draw)(jax.random.split(key, lengths.shape[0]), lengths)
