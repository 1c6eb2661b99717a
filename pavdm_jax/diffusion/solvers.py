"""How latents move from one level to the next: Euler's method, and UniPC of order 2, which remembers.

Each latent frame is solved by itself: in one call frames are at different steps, or stay as they are. What a solver
remembers of a frame are arrays of the latents' shape, which move with the window. Levels are float32 in 0..1.
"""

import functools
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from pavdm_jax.diffusion.flow import euler_step, interpolate


class Solver(Protocol):
    """Moves latents along their velocity, clean − noise, from given levels to the next ones."""

    def initial_memory(self, clean: jax.Array, noise: jax.Array, levels: jax.Array) -> Any:
        """What is remembered of latents that were not solved here, but noised: a pytree of arrays of their shape.

        Args:
          clean, noise: [b, t, h, w, c].
          levels: [b, t], to which they were noised; of the first level nothing is remembered.
        """
        ...

    def step(
        self, latents: jax.Array, velocity: jax.Array, levels: jax.Array, next_levels: jax.Array, memory: Any
    ) -> tuple[jax.Array, Any]:
        """Latents [b, t, h, w, c] at `next_levels` [b, t], from those at `levels` [b, t]; and the new memory.

        Frames whose level does not change are returned bit for bit, whatever their velocity is, even NaN.
        """
        ...


class Euler(struct.PyTreeNode):
    """Straight on along the velocity; remembers nothing."""

    def initial_memory(self, clean: jax.Array, noise: jax.Array, levels: jax.Array) -> tuple[()]:
        return ()

    def step(
        self, latents: jax.Array, velocity: jax.Array, levels: jax.Array, next_levels: jax.Array, memory: tuple[()]
    ) -> tuple[jax.Array, tuple[()]]:
        return euler_step(latents, velocity, levels, next_levels), memory


EULER = Euler()


@struct.dataclass
class UniPCMemory:
    """Of each latent frame, the step before: [b, t, h, w, c] each.

    Attributes:
      corrected: its latents, once corrected.
      prediction: the clean latents predicted in it.
      earlier: the clean latents predicted a step earlier.
    """

    corrected: jax.Array
    prediction: jax.Array
    earlier: jax.Array


class UniPC(struct.PyTreeNode):
    """UniPC (arXiv 2302.04867) of order 2 with B(h) = e^−h − 1, predicting clean latents.

    A step predicts the clean latents m, corrects its own start with them, and goes on from the corrected start. Both
    are sums of what is known with weights that depend on the step only, computed in float64 here. The first step has no
    correction, the last one ends at m. Source: SkyReels-V2 skyreels_v2_infer/scheduler/fm_solvers_unipc.py (`bh2`), as
    a closed form.

    Attributes:
      levels: [steps + 1], falling from below 1 to 0. A frame's level must be one of them, bit for bit, its next level
        the one after it.
      correction: [steps, 5], weights of: the latents, `corrected`, m, `prediction`, `earlier`.
      prediction: [steps, 3], weights of: the corrected latents, m, `prediction`.
    """

    levels: ArrayLike
    correction: ArrayLike
    prediction: ArrayLike

    @classmethod
    def of(cls, levels: np.ndarray, overwritten_start: bool = False) -> "UniPC":
        """The solver on a grid of levels [steps + 1], falling from below 1 to 0.

        Args:
          levels: the grid.
          overwritten_start: do as the pipelines of SkyReels-V2, and of diffusers: they keep a view of the latents in
            which a frame starts, and write the result of its first step there, so that the first correction sets out
            from that. It moves a whole sampling by half a percent.
        """
        steps = range(len(levels) - 1)
        correction = np.asarray([_correction(levels, i) for i in steps], np.float32)
        if overwritten_start:
            correction[1:2, :2] = correction[1:2, 1::-1]
        return cls(levels, correction, np.asarray([_prediction(levels, i) for i in steps], np.float32))

    def initial_memory(self, clean: jax.Array, noise: jax.Array, levels: jax.Array) -> UniPCMemory:
        """As if they had come down the straight line from noise to clean, which is known."""
        before = jnp.asarray(self.levels)[jnp.maximum(self._number(levels) - 1, 0)]
        clean = clean.astype(jnp.float32)
        return UniPCMemory(interpolate(clean, noise, before), clean, clean)

    def _number(self, levels: jax.Array) -> jax.Array:
        """The number of the step that begins at each level."""
        grid = jnp.asarray(self.levels)[:-1]
        return jnp.minimum(jnp.sum(grid[None, None] > levels[:, :, None], axis=-1), grid.size - 1)

    def step(
        self, latents: jax.Array, velocity: jax.Array, levels: jax.Array, next_levels: jax.Array, memory: UniPCMemory
    ) -> tuple[jax.Array, UniPCMemory]:
        changes = (levels != next_levels)[:, :, None, None, None]
        number = self._number(levels)

        def weighted(table: ArrayLike, *terms: jax.Array) -> jax.Array:
            weights = jnp.asarray(table)[number][..., None, None, None]
            return functools.reduce(jnp.add, (weights[:, :, i] * term for i, term in enumerate(terms)))

        clean = latents + levels[:, :, None, None, None] * velocity
        corrected = weighted(self.correction, latents, memory.corrected, clean, memory.prediction, memory.earlier)
        moved = weighted(self.prediction, corrected, clean, memory.prediction)
        new = UniPCMemory(corrected, clean, memory.prediction)
        return jnp.where(changes, moved, latents), jax.tree.map(lambda a, b: jnp.where(changes, a, b), new, memory)


def _log_ratio(levels: np.ndarray, i: int) -> np.float64:
    """log of signal to noise, the time in which the equation is linear."""
    level = np.float64(levels[i])
    return np.log1p(-level) - np.log(level)


def _correction(levels: np.ndarray, i: int) -> tuple[float, ...]:
    """Weights of step i's latents, and of the corrected ones, m, and the predictions of the steps before."""
    if i == 0:
        return 1.0, 0.0, 0.0, 0.0, 0.0
    level, before = np.float64(levels[i]), np.float64(levels[i - 1])
    h = _log_ratio(levels, i) - _log_ratio(levels, i - 1)
    e = np.expm1(-h)
    if i == 1:
        slope, curve = 0.5, 0.0
    else:
        r = (_log_ratio(levels, i - 2) - _log_ratio(levels, i - 1)) / h
        first = (-e / h - 1) / e
        second = 2 * ((e / h + 1) / h - 0.5) / e
        weight = (first - second) / (1 - r)
        slope, curve = first - weight, weight / r
    # Beside the share of the corrected latents before: prediction + slope · (m − prediction) + curve · (earlier − it).
    scale = -(1 - level) * e
    return 0.0, level / before, scale * slope, scale * (1 - slope - curve), scale * curve


def _prediction(levels: np.ndarray, i: int) -> tuple[float, ...]:
    """Weights of step i's corrected latents, of m, and of the prediction of the step before."""
    if levels[i + 1] == 0:
        return 0.0, 1.0, 0.0
    level, later = np.float64(levels[i]), np.float64(levels[i + 1])
    h = _log_ratio(levels, i + 1) - _log_ratio(levels, i)
    scale = -(1 - later) * np.expm1(-h)
    curve = 0.0 if i == 0 else 0.5 * h / (_log_ratio(levels, i - 1) - _log_ratio(levels, i))
    return later / level, scale * (1 - curve), scale * curve
