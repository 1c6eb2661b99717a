"""Training objectives of the diffusion transformer: their settings, and the loss.

The levels that they draw are in `train_levels.py`. A frame at level 0 stays clean and has no loss (the paper's context
chunk, Open-Sora's masked frames). Source: opensora/schedulers/rf/rectified_flow.py of Open-Sora and of desaixie/pa_vdm,
`training_losses`.
"""

import math
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from pavdm_jax.diffusion.masks import Masks
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
class Windows:
    """Which windows of a progressive video are drawn (arXiv 2410.08151, section 3).

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

    def __post_init__(self) -> None:
        shares = {"growing": self.growing, "shrinking": self.shrinking, "short": self.short}
        if not min(shares.values()) >= 0 or not sum(shares.values()) <= 1 + 1e-6:
            given = ", ".join(f"{name} {share}" for name, share in shares.items())
            raise ConfigError(f"{given} are shares of all windows; give numbers from 0, together at most 1")


@dataclass(frozen=True)
class ProgressiveDiffusion(Windows):
    """Levels that rise along the window: the paper's method (arXiv 2410.08151, section 3).

    Raises:
      ConfigError: a value out of range.
    """

    level_shift: float = 0.4  # standard deviation of the shift of all levels, in grid steps (1 / sampling steps)
    caption_dropout: float = 0.1  # share of the captions that are replaced by the null caption

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_level_shift(self.level_shift)
        _check_dropout(self.caption_dropout)


@dataclass(frozen=True)
class DistilledGuidance(Windows):
    """Guidance distillation (arXiv 2210.03142, section 3.1, at one scale): one pass of the network instead of two.

    The student learns the velocity that a frozen teacher, the model that the stage starts from, predicts with
    classifier-free guidance. Windows and levels are those of `ProgressiveDiffusion`.

    Raises:
      ConfigError: a value out of range.
    """

    guidance_scale: float = 7.0  # of the teacher
    level_shift: float = 0.4  # standard deviation of the shift of all levels, in grid steps (1 / sampling steps)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_scale(self.guidance_scale)
        _check_level_shift(self.level_shift)


@dataclass(frozen=True)
class DistilledShift(Windows):
    """Distillation of the steps of a shift: the student makes in one step what the teacher makes in several.

    From a window at the levels at which the student's step begins, a frozen teacher, the model that the stage starts
    from, takes Euler steps down to the levels at which the student's step ends. The student learns the mean velocity
    between the two, with which its one Euler step gets to the same place. Its number of steps is the model's
    (`window.steps`): as many as the window has noisy chunks is one step a shift.

    Raises:
      ConfigError: a value out of range.
    """

    steps: int = 30  # of the teacher, for each latent frame; a multiple of the student's
    guidance_scale: float = 1.0  # of the teacher; 1, no guidance, is for one whose guidance was distilled before
    rollout: float = 0.0  # share of windows that are the student's own: it makes the step before, from noised data

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.rollout <= 1:
            raise ConfigError(f"rollout is a share of the windows, from 0 to 1, not {self.rollout}")
        _check_scale(self.guidance_scale)
        if self.steps < 1:
            raise ConfigError(f"steps of the teacher must be at least 1, not {self.steps}")


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
        if not min(self.weights) >= 0 or not 0 < sum(self.weights) < math.inf:
            raise ConfigError(f"weights {self.weights} of a mix must be numbers from 0 on, and one of them above 0")


def _check_level_shift(deviation: float) -> None:
    if not 0 <= deviation < math.inf:
        raise ConfigError(f"level_shift must be a number from 0 on, not {deviation}")


def _check_scale(scale: float) -> None:
    if not math.isfinite(scale):
        raise ConfigError(f"guidance_scale must be a number, not {scale}")


def _check_dropout(share: float) -> None:
    if not 0 <= share <= 1:
        raise ConfigError(f"caption_dropout is a share of the captions, from 0 to 1, not {share}")


# --- loss -------------------------------------------------------------------------------------------------------------


def frame_losses(velocity: jax.Array, target: jax.Array, loss_mask: jax.Array) -> jax.Array:
    """Mean squared error of the predicted velocity in each frame, 0 in frames that do not count.

    Args:
      velocity: the prediction, [b, t, h, w, c].
      target: what it should be, such as `flow.velocity_target`, [b, t, h, w, c].
      loss_mask: [b, t], see `TrainLevels`.

    Returns:
      [b, t] float32.
    """
    error = velocity.astype(jnp.float32) - target
    # `where` before the square, not a product after it: the others may hold any value, and must have no gradient.
    error = jnp.where(loss_mask[:, :, None, None, None] > 0, error, 0.0)
    return jnp.mean(jnp.square(error), axis=(2, 3, 4))


def flow_loss(per_frame: jax.Array, loss_mask: jax.Array) -> jax.Array:
    """The mean of `frame_losses` [b, t] over the frames that count: [b]; 0 for a sample without such a frame."""
    return jnp.sum(per_frame * loss_mask, axis=1) / jnp.maximum(jnp.sum(loss_mask, axis=1), 1.0)
