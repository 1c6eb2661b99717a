"""Blocks repeated over the depth of a network: one scan over stacked parameters, compiled once whatever the depth.

Shallow networks are compiled block by block: no activations are put into stacks for the
backward pass and taken out again.
"""

from typing import Any

import jax
from flax import linen as nn

from pavdm_jax.errors import ConfigError

ATTENTION_OUTPUT = "attention_output"
"""The name by which blocks mark their outputs of attention (`jax.ad_checkpoint.checkpoint_name`)."""

REMAT_POLICIES = {
    "none": None,
    "attention": jax.checkpoint_policies.save_only_these_names(ATTENTION_OUTPUT),
    "full": jax.checkpoint_policies.nothing_saveable,
}
"""Which activations of a block the backward pass computes again instead of keeping them: none; all but the outputs of
attention; all of them (least memory, a third more arithmetic)."""


SHALLOW = 6
"""Scans of so many steps are unrolled.

The demo's six pairs train a quarter faster for it (6.7 windows a second instead of 5.4) and sample alike; the first
frames come 1 to 4 s later when nothing is compiled yet (2026-11-29, two cores of an Intel Xeon; `demo_progressive` with
jax 0.12.0.1 and bfloat16 products, 480 frames of demo-distilled with jax 0.10.2).
"""


def over_depth(block: type[nn.Module], depth: int, in_axes: tuple, remat: str = "none") -> Any:
    """`block` as the body of a scan whose parameters are stacked, [depth, ...].

    Args:
      block: its `__call__` maps (carry, *arguments) to (carry, output).
      depth: how many there are.
      in_axes: for each of the arguments, the axis that the depth is of, or `nn.broadcast` for the same to all blocks.
      remat: a key of `REMAT_POLICIES`.

    Returns:
      The class of modules to use in place of `block`, called in the same way.

    Raises:
      ConfigError: another `remat`.
    """
    if remat not in REMAT_POLICIES:
        raise ConfigError(f"remat '{remat}' is not known; use one of {', '.join(REMAT_POLICIES)}")
    policy = REMAT_POLICIES[remat]
    body = block if policy is None else nn.remat(block, prevent_cse=False, policy=policy)
    axes: Any = in_axes  # flax takes a tuple of axes, one an argument; its annotation has an int
    return nn.scan(
        body,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=axes,
        length=depth,
        unroll=depth if depth <= SHALLOW else 1,
    )
