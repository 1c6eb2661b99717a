"""Plain sampling of a clip, and the baselines that extend a video clip by clip, as values of two arrays.

The frames of a clip follow `levels` [steps + 1, b, t]; where `renoise` [steps + 1, b, t] is True, a frame is set to its
given value, noised to its level. Three methods differ in these arrays only: text to video; replacement without noise
(RN; Open-Sora's loop with its masks and edit ratios, opensora/schedulers/rf/__init__.py); and replacement with noise
(RW; arXiv 2410.08151, section 4).
"""

import jax
import jax.numpy as jnp
from flax import struct

from pavdm_jax.diffusion.flow import Velocity, euler_step, interpolate
from pavdm_jax.diffusion.sampler import Noise


@struct.dataclass
class ClipPlan:
    """The levels of a clip before each step, and after the last one (row `steps`).

    Attributes:
      levels: [steps + 1, b, t] float32 in 0..1.
      renoise: [steps + 1, b, t] bool: set the frame to its given value, noised to its level with fresh noise.
    """

    levels: jax.Array
    renoise: jax.Array


def without_noise(levels: jax.Array, mask: jax.Array) -> ClipPlan:
    """The plan of RN, and with a mask of ones that of plain sampling.

    Args:
      levels: [steps + 1] from 1 down to 0, after the noise shift.
      mask: [b, t] in 0..1, the edit ratio of each frame: 1 samples the frame, 0 keeps the given value. In between, the
        frame is kept clean until the level has come down to the mask; there it is noised to that level, and denoised
        with the rest.
    """
    levels = levels[:, None, None]
    joined = mask[None] >= levels
    before = jnp.concatenate([jnp.zeros_like(joined[:1]), joined[:-1]])
    # The last row would let frames with mask 0 join at level 0, where nothing is left to do.
    return ClipPlan(levels=jnp.where(joined, levels, 0.0), renoise=joined & ~before & (levels > 0.0))


def with_noise(levels: jax.Array, given: jax.Array) -> ClipPlan:
    """The plan of RW: all frames share one level, and before each step the given frames are noised to it again.

    Args:
      levels: [steps + 1] from 1 down to 0, after the noise shift.
      given: bool [b, t], the frames that are given.
    """
    shape = (levels.shape[0], *given.shape)
    first = jnp.arange(shape[0])[:, None, None] == 0
    return ClipPlan(levels=jnp.broadcast_to(levels[:, None, None], shape), renoise=given[None] | first)


def sample_clip(velocity: Velocity, noise: Noise, given: jax.Array, plan: ClipPlan) -> jax.Array:
    """Sample a clip of latents.

    Args:
      velocity: see `flow.Velocity`; it is called with all frames valid, and with prompt 0.
      noise: step number → [b, t, h, w, c]; it is called with 0..steps.
      given: [b, t, h, w, c]; its values in frames that are sampled do not matter.
      plan: from `without_noise` or `with_noise`.

    Returns:
      [b, t, h, w, c] float32.
    """
    given = given.astype(jnp.float32)
    steps, num_frames = plan.levels.shape[0] - 1, jnp.int32(given.shape[1])
    prompt_index = jnp.zeros((1,), jnp.int32)

    def renoised(i: jax.Array, latents: jax.Array) -> jax.Array:
        fresh = interpolate(given, noise(i), plan.levels[i])
        return jnp.where(plan.renoise[i][:, :, None, None, None], fresh, latents)

    def step(i: jax.Array, latents: jax.Array) -> jax.Array:
        latents = renoised(i, latents)
        prediction = velocity(latents, plan.levels[i], num_frames, prompt_index).astype(jnp.float32)
        return euler_step(latents, prediction, plan.levels[i], plan.levels[i + 1])

    return renoised(jnp.int32(steps), jax.lax.fori_loop(0, steps, step, given))


def extend_by_replacement(
    velocity: Velocity,
    noise: Noise,
    context: jax.Array,
    num_frames: int,
    levels: jax.Array,
    clip_number: jax.Array | int,
    noisy_context: bool,
    edit_ratio: jax.Array | float = 0.0,
) -> jax.Array:
    """The next clip of a video that is extended clip by clip: RW if `noisy_context`, else RN.

    Args:
      velocity: see `flow.Velocity`.
      noise: number → [b, num_frames, h, w, c]; clip n takes the numbers n · (steps + 1) to n · (steps + 1) + steps.
      context: [b, g, h, w, c], the end of the clip before: its last latents, or (as Open-Sora does) its last pixel
        frames encoded again; g = 0 samples the first clip of a video.
      num_frames: latent frames of the clip.
      levels: [steps + 1] from 1 down to 0, after the noise shift.
      clip_number: 0 for the video's first clip.
      noisy_context: noise the context to the clip's level at every step, instead of keeping it clean.
      edit_ratio: of RN's context, in 0..1, see `without_noise`; 0 keeps it.

    Returns:
      [b, num_frames, h, w, c] float32; the context comes first.
    """
    b, g, *cell = context.shape
    given = jnp.concatenate([context, jnp.zeros((b, num_frames - g, *cell), context.dtype)], axis=1)
    is_given = jnp.broadcast_to(jnp.arange(num_frames)[None, :] < g, (b, num_frames))
    plan = with_noise(levels, is_given) if noisy_context else without_noise(levels, 1.0 - is_given * (1.0 - edit_ratio))
    first = clip_number * levels.shape[0]
    return sample_clip(velocity, lambda step: noise(first + step), given, plan)
