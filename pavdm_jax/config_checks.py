"""What several configs check of their values in the same way."""

import math
from collections.abc import Iterable
from typing import Any

from pavdm_jax.errors import ConfigError

MAX_LAYERS = 100
"""Of one size, where a network is built layer by layer: more is damage, and would take for ever."""


def check_at_least(least: int, config: Any, *names: str, most: float = math.inf) -> None:
    """Check that fields of a config, or all items of those that are tuples, have at least this value, and at most
    another one.

    Raises:
      ConfigError: one has not, or is a tuple without items.
    """
    for name in names:
        value = getattr(config, name)
        items = value if isinstance(value, tuple) else (value,)
        if not items or not min(items) >= least:
            raise ConfigError(f"{name} must be at least {least}, not {value}")
        if max(items) > most:
            raise ConfigError(f"{name} must be at most {most}, not {value}")


def check_positive(config: Any, *names: str) -> None:
    """Check that fields of a config, or all items of tuples, are finite and above 0, else `ConfigError`."""
    for name in names:
        value = getattr(config, name)
        if not all(0 < item < math.inf for item in (value if isinstance(value, tuple) else (value,))):
            raise ConfigError(f"{name} must be finite and above 0, not {value}")


def check_groups(num_groups: int, channels: Iterable[int]) -> None:
    """Check that layers with so many channels can be normalised in groups, else `ConfigError`."""
    for number in channels:
        if num_groups < 1 or number % num_groups:
            raise ConfigError(f"num_groups {num_groups} does not divide the {number} channels of a layer")


def check_between(temporal_downsample: tuple, channel_multipliers: tuple) -> None:
    """Check that a temporal VAE says between each two of its levels whether frames are halved, else `ConfigError`."""
    if len(temporal_downsample) != len(channel_multipliers) - 1:
        raise ConfigError(
            f"temporal_downsample has {len(temporal_downsample)} entries; one is needed between each two of the "
            f"{len(channel_multipliers)} channel_multipliers"
        )


def check_fit(transformer: Any, name: str, latent_channels: int, t5: Any, text: Any) -> None:
    """Check that a transformer, the part `name` of a model, fits its VAE and text encoder, else `ConfigError`."""
    for ours, value, theirs, other in (
        (f"{name}.latent_channels", transformer.latent_channels, "the VAE's", latent_channels),
        (f"{name}.caption_channels", transformer.caption_channels, "t5.d_model", t5.d_model),
        ("text.max_tokens", text.max_tokens, f"{name}.max_caption_tokens", transformer.max_caption_tokens),
    ):
        if value != other:
            raise ConfigError(f"{ours} {value} differs from {theirs} {other}")
