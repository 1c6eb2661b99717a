"""Training objectives of the diffusion transformer: the level of each latent frame, which frames count, and the loss.

Each sample of a batch has its own levels. All functions are pure, and jit with fixed shapes. Latents are noised by
`sample_noisy`; a frame at level 0 stays clean and has no loss (the paper's context chunk, Open-Sora's masked frames).
Source: opensora/schedulers/rf/rectified_flow.py of Open-Sora and of desaixie/pa_vdm, `training_losses`.
"""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from flax import struct

from pavdm_jax.config import WindowConfig
from pavdm_jax.diffusion.flow import interpolate, shift_levels, velocity_target
from pavdm_jax.diffusion.masks import Masks, sample_masks
from pavdm_jax.diffusion.noise_levels import level_table
from pavdm_jax.errors import ConfigError

# --- settings ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class UniformDiffusion:
    """One noise level for a whole clip, some frames kept clean by mask strategies (Open-Sora's pretraining).

    Without mask strategies it is the training of replacement with noise (the paper's RW): all frames share one level.

    Raises:
      ConfigError: a value out of range.
    """

    clip_chunks: int = 7  # chunks of a training clip
    masks: Masks | None = field(default_factory=Masks)  # chances of the mask strategies; None: no frame is kept clean
    caption_dropout: float = 0.1  # share of the captions that are replaced by the null caption
    logit_normal: bool = True  # levels are sigmoid(normal) before the noise shift; False: uniform in 0..1

    def __post_init__(self) -> None:
        if self.clip_chunks < 1:
            raise ConfigError(f"clip_chunks must be at least 1, not {self.clip_chunks}")
        _check_dropout(self.caption_dropout)


@dataclass(frozen=True)
class ProgressiveDiffusion:
    """Levels that rise along the window: the paper's method (arXiv 2410.08151, section 3).

    A growing window holds fewer noisy chunks than a full one, at the highest levels, as at the start of a video. A
    shrinking one holds fewer at the lowest levels, as at the end of a video; a short one holds fewer between the two,
    as in a video that never fills the window. The other windows are full. With all three shares at 0 it is the
    fixed-length design. The content of a video from text alone is decided in growing windows without context.

    Raises:
      ConfigError: a value out of range.
    """

    growing: float = 0.25  # share of windows that grow
    shrinking: float = 0.25  # share of windows that shrink
    short: float = 0.1  # share of windows of short videos, of fewer new chunks than the window holds
    level_shift: float = 0.4  # standard deviation of the shift of all levels, in grid steps (1 / sampling steps)
    caption_dropout: float = 0.1  # share of the captions that are replaced by the null caption

    def __post_init__(self) -> None:
        shares = {"growing": self.growing, "shrinking": self.shrinking, "short": self.short}
        if not min(shares.values()) >= 0 or not sum(shares.values()) <= 1 + 1e-6:
            given = ", ".join(f"{name} {share}" for name, share in shares.items())
            raise ConfigError(f"{given} are shares of all windows; give numbers from 0, together at most 1")
        if not self.level_shift >= 0:
            raise ConfigError(f"level_shift must be 0 or more, not {self.level_shift}")
        _check_dropout(self.caption_dropout)


@dataclass(frozen=True)
class MixedDiffusion:
    """Several diffusion objectives in one batch: each sample draws one of them, by weight.

    Raises:
      ConfigError: not one weight for each objective, a negative weight, or no weight above 0.
    """

    objectives: tuple[UniformDiffusion | ProgressiveDiffusion, ...]
    weights: tuple[float, ...]  # one each; only their ratios matter

    def __post_init__(self) -> None:
        if not len(self.weights) == len(self.objectives) >= 1:
            raise ConfigError(
                f"{len(self.weights)} weights are given for {len(self.objectives)} objectives; give one each"
            )
        if min(self.weights) < 0 or sum(self.weights) <= 0:
            raise ConfigError(f"weights {self.weights} of a mix must be 0 or more, and one of them above 0")


def _check_dropout(share: float) -> None:
    if not 0 <= share <= 1:
        raise ConfigError(f"caption_dropout is a share of the captions, from 0 to 1, not {share}")


# --- levels and loss --------------------------------------------------------------------------------------------------


class TrainLevels(struct.PyTreeNode):
    """The noise levels of a training batch.

    Attributes:
      levels: [b, t] float32 in 0..1; 0 in clean and invalid frames.
      loss_mask: [b, t] float32, 1 where a frame counts in the loss, else 0.
      num_valid: [b] int32, the latent frames that the network sees, a prefix of t.
    """

    levels: jax.Array
    loss_mask: jax.Array
    num_valid: jax.Array


def frame_losses(velocity: jax.Array, latents: jax.Array, noise: jax.Array, loss_mask: jax.Array) -> jax.Array:
    """Mean squared error of the predicted velocity in each frame, 0 in frames that do not count.

    Args:
      velocity: the prediction, [b, t, h, w, c].
      latents: clean, [b, t, h, w, c].
      noise: from `sample_noisy`, [b, t, h, w, c].
      loss_mask: [b, t], see `TrainLevels`.

    Returns:
      [b, t] float32.
    """
    error = velocity.astype(jnp.float32) - velocity_target(latents, noise)
    # `where` before the square, not a product after it: the others may hold any value, and must have no gradient.
    error = jnp.where(loss_mask[:, :, None, None, None] > 0, error, 0.0)
    return jnp.mean(jnp.square(error), axis=(2, 3, 4))


def flow_loss(per_frame: jax.Array, loss_mask: jax.Array) -> jax.Array:
    """The mean of `frame_losses` [b, t] over the frames that count: [b]; 0 for a sample without such a frame."""
    return jnp.sum(per_frame * loss_mask, axis=1) / jnp.maximum(jnp.sum(loss_mask, axis=1), 1.0)


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
    objective: ProgressiveDiffusion,
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
    are the windows of a video of n new chunks after its growth, until its first chunk is clean.

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
    row_key, move_key, kind_key, active_key, context_key = jax.random.split(key, 5)
    few_key, place_key = jax.random.split(jax.random.fold_in(key, 5))
    k_chunks, context_chunks = window.noisy_chunks, window.context_chunks

    row = jax.random.randint(row_key, (batch,), 0, window.steps_per_shift)
    move = objective.level_shift / window.steps * jax.random.normal(move_key, (batch,))
    table = jnp.clip(level_table(window)[row] + move[:, None], 0.0, 1.0)

    kind = jax.random.uniform(kind_key, (batch,))
    grows, shrinks = kind < objective.growing, kind >= 1.0 - objective.shrinking
    is_short = ~grows & ~shrinks & (kind < objective.growing + objective.short)
    active = jnp.where(grows | shrinks, jax.random.randint(active_key, (batch,), 1, k_chunks + 1), k_chunks)
    active = jnp.where(is_short, jax.random.randint(few_key, (batch,), 1, max(k_chunks, 2)), active)
    any_context = jax.random.randint(context_key, (batch,), 0, context_chunks + 1)
    context = jnp.where(grows | is_short, any_context, context_chunks)
    lowest = jax.random.randint(place_key, (batch,), 0, jnp.maximum(k_chunks - active, 1))
    # The column of the first noisy chunk in the table.
    begin = jnp.where(grows, k_chunks - active, jnp.where(is_short, lowest, 0))

    slot = jnp.arange(window.slots)[None, :]
    place = slot - context[:, None]  # among the chunks that are being denoised
    denoised = (place >= 0) & (place < active[:, None])
    column = place + begin[:, None]
    levels = jnp.take_along_axis(table, jnp.clip(column, 0, k_chunks - 1), axis=1)
    rows, columns = (jnp.broadcast_to(jnp.asarray(x, jnp.float32), (batch,))[:, None] for x in (height, width))
    levels = jnp.where(denoised, shift_levels(levels, rows, columns, window.window_size, base_size), 0.0)
    denoised &= levels > 0  # a chunk that was moved down to level 0 is clean, and has no loss
    return TrainLevels(
        levels=jnp.repeat(levels, window.chunk_size, axis=1),
        loss_mask=jnp.repeat(denoised.astype(jnp.float32), window.chunk_size, axis=1),
        num_valid=((context + active) * window.chunk_size).astype(jnp.int32),
    )
