"""The noise levels of training: of each latent frame, by objective, and which frames count.

Each sample of a batch has its own levels. All functions are pure, and jit with fixed shapes. Source:
opensora/schedulers/rf/rectified_flow.py of Open-Sora and of desaixie/pa_vdm, `training_losses`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import struct

from pavdm_jax.config import WindowConfig
from pavdm_jax.diffusion.flow import interpolate, shift_levels
from pavdm_jax.diffusion.masks import sample_masks
from pavdm_jax.diffusion.noise_levels import level_table
from pavdm_jax.diffusion.objectives import DistilledGuidance, ProgressiveDiffusion, UniformDiffusion, Windows


class TrainLevels(struct.PyTreeNode):
    """The noise levels of a training batch.

    Attributes:
      levels: [b, t] float32 in 0..1; 0 in invalid frames, and in clean ones but for a context that is noised.
      loss_mask: [b, t] float32, 1 where a frame counts in the loss, else 0.
      num_valid: [b] int32, the latent frames that the network sees, a prefix of t.
    """

    levels: jax.Array
    loss_mask: jax.Array
    num_valid: jax.Array


def sample_noisy(key: jax.Array, latents: jax.Array, levels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Noise clean latents [b, t, h, w, c] to `levels` [b, t]; returns the noisy latents and the noise, float32."""
    noise = jax.random.normal(key, latents.shape, jnp.float32)
    return interpolate(latents, noise, levels), noise


def sample_uniform(
    key: jax.Array,
    objective: UniformDiffusion,
    batch: int,
    frames: int,
    height: jax.Array | float,
    width: jax.Array | float,
    base_size: float,
    num_valid: jax.Array | None = None,
) -> TrainLevels:
    """One level for all frames of a clip, with some frames kept clean: Open-Sora's pretraining.

    Args:
      key: one PRNG key.
      objective: its settings; `clip_chunks` and `caption_dropout` are not used here, but by the caller.
      batch: b.
      frames: t, the latent frames of a clip; 1 is an image.
      height, width: pixels, scalars or [b]; with the clip's latent frames they set the noise shift.
      base_size: pixels, of the noise shift, see `flow.shift_levels`.
      num_valid: [b], latent frames of each clip, where some are shorter than `frames` and padded at the end; None: no
        clip is padded.
    """
    level_key, mask_key = jax.random.split(key)
    num_valid = jnp.full((batch,), frames, jnp.int32) if num_valid is None else num_valid.astype(jnp.int32)
    if objective.logit_normal:
        drawn = jax.nn.sigmoid(jax.random.normal(level_key, (batch,)))
    else:
        drawn = jax.random.uniform(level_key, (batch,))
    level = shift_levels(drawn, height, width, num_valid, base_size)
    noisy = jnp.arange(frames)[None, :] < num_valid[:, None]
    if objective.masks is not None:
        noisy &= sample_masks(mask_key, objective.masks, num_valid, frames)
    return TrainLevels(
        levels=jnp.where(noisy, level[:, None], 0.0), loss_mask=noisy.astype(jnp.float32), num_valid=num_valid
    )


def sample_progressive(
    key: jax.Array,
    objective: ProgressiveDiffusion | DistilledGuidance,
    window: WindowConfig,
    batch: int,
    height: jax.Array | float,
    width: jax.Array | float,
    base_size: float,
) -> TrainLevels:
    """Levels of a window at a random step of a random shift (arXiv 2410.08151, section 3).

    The levels are a random row of the level table, all moved by the same normal deviate (standard deviation
    `level_shift` grid steps), clamped to 0..1, then the noise shift. A full window is the context and all K noisy
    chunks. A growing window has n noisy chunks at the highest levels, a shrinking one n at the lowest, n uniform in
    1..K, and is empty behind them. A short window has n in 1..K−1 chunks at consecutive levels below the highest: these
    are the windows of a video of n new chunks after its growth, until its first chunk is clean. The context has the
    level `window.context_noise`, as in sampling.

    Deviations:
      - The released code (desaixie/pa_vdm) clamps the levels to 0.999, one timestep below pure noise. Here they are
        clamped to 1, because sampling starts from pure noise: the last level of the table, before the first step, is 1.
      - Growing and short windows have any number of context chunks down to none with equal probability, so that videos
        can start from text alone. The released code always has the whole context; the paper's design allows none.
      - The shares of growing, shrinking and full windows are settings, because the paper does not tell them.

    Args:
      key: one PRNG key.
      objective: its settings; `caption_dropout` is not used here, but by the caller.
      window: its sizes. Clips have t = `window.window_size` latent frames, of which a smaller window takes the first.
      batch: b.
      height, width: pixels, scalars or [b].
      base_size: pixels, of the noise shift, see `flow.shift_levels`.
    """
    row_key, move_key, *keys = jax.random.split(key, 5)
    row = jax.random.randint(row_key, (batch,), 0, window.steps_per_shift)
    move = objective.level_shift / window.steps * jax.random.normal(move_key, (batch,))
    table = jnp.clip(level_table(window)[row] + move[:, None], 0.0, 1.0)
    drawn = _draw_windows((*keys, *jax.random.split(jax.random.fold_in(key, 5))), objective, window, batch)
    levels = jnp.take_along_axis(table, jnp.clip(drawn.columns, 0, window.noisy_chunks - 1), axis=1)
    return window_levels(levels, drawn.is_noisy, drawn.chunks, window, height, width, base_size)


class DrawnWindows(struct.PyTreeNode):
    """Windows of a batch.

    Attributes:
      columns: int32 [b, slots], the column of the level table at which a chunk that is being denoised is. Those of the
        other slots go on to both sides: a context that was finished by the shift before has −1.
      is_noisy: bool [b, slots], chunks that are being denoised; the others are context, or empty.
      chunks: int32 [b], of the context and noisy; the slots behind them are empty.
    """

    columns: jax.Array
    is_noisy: jax.Array
    chunks: jax.Array


def draw_windows(key: jax.Array, windows: Windows, window: WindowConfig, batch: int) -> DrawnWindows:
    """Random windows of a batch, see `Windows`; `window` has their sizes."""
    return _draw_windows(jax.random.split(key, 5), windows, window, batch)


def _draw_windows(
    keys: Sequence[jax.Array] | jax.Array, windows: Windows, window: WindowConfig, batch: int
) -> DrawnWindows:
    kind_key, active_key, context_key, few_key, place_key = keys
    k_chunks, context_chunks = window.noisy_chunks, window.context_chunks

    kind = jax.random.uniform(kind_key, (batch,))
    grows, shrinks = kind < windows.growing, kind >= 1.0 - windows.shrinking
    is_short = ~grows & ~shrinks & (kind < windows.growing + windows.short)
    active = jnp.where(grows | shrinks, jax.random.randint(active_key, (batch,), 1, k_chunks + 1), k_chunks)
    active = jnp.where(is_short, jax.random.randint(few_key, (batch,), 1, max(k_chunks, 2)), active)
    any_context = jax.random.randint(context_key, (batch,), 0, context_chunks + 1)
    context = jnp.where(grows | is_short, any_context, context_chunks)
    lowest = jax.random.randint(place_key, (batch,), 0, jnp.maximum(k_chunks - active, 1))
    # The column of the first noisy chunk in the table.
    begin = jnp.where(grows, k_chunks - active, jnp.where(is_short, lowest, 0))

    slot = jnp.arange(window.slots)[None, :]
    place = slot - context[:, None]  # among the chunks that are being denoised
    is_noisy = (place >= 0) & (place < active[:, None])
    return DrawnWindows(place + begin[:, None], is_noisy, context + active)


def window_levels(
    levels: jax.Array,
    is_noisy: jax.Array,
    chunks: jax.Array,
    window: WindowConfig,
    height: jax.Array | float,
    width: jax.Array | float,
    base_size: float,
) -> TrainLevels:
    """The levels of latent frames, from those of chunks before the noise shift.

    Args:
      levels: [b, slots] in 0..1, before the noise shift.
      is_noisy, chunks: see `DrawnWindows`; of the other slots the context gets `window.context_noise`, empty ones 0.
      window, height, width, base_size: see `sample_progressive`.
    """
    rows, columns = (jnp.broadcast_to(jnp.asarray(x, jnp.float32), chunks.shape)[:, None] for x in (height, width))
    of_context = jnp.where(jnp.arange(window.slots)[None, :] < chunks[:, None], window.context_noise, 0.0)
    levels = jnp.where(is_noisy, shift_levels(levels, rows, columns, window.window_size, base_size), of_context)
    is_noisy &= levels > 0  # a chunk that was moved down to level 0 is clean, and has no loss
    return TrainLevels(
        levels=jnp.repeat(levels, window.chunk_size, axis=1),
        loss_mask=jnp.repeat(is_noisy.astype(jnp.float32), window.chunk_size, axis=1),
        num_valid=(chunks * window.chunk_size).astype(jnp.int32),
    )
