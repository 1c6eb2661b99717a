"""Sizes of a network, read off the shapes of its tensors and its config.json."""

import re
from collections.abc import Mapping
from typing import Any

from pavdm_jax.errors import ConfigError

LARGEST = 10_000_000
"""The largest size of a network that is accepted; a larger one means a damaged config.json."""


class Shapes:
    """Sizes from the shapes of tensors; a missing tensor gives the default, and is reported later."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]):
        self.shapes = shapes

    def size(self, name: str, axis: int, default: int) -> int:
        """The size of a tensor along an axis."""
        shape = self.shapes.get(name, ())
        return int(shape[axis]) if len(shape) > axis and shape[axis] > 0 else default

    def count(self, pattern: str) -> int:
        """The number of layers: of different numbers at `{i}` in the names that begin with `pattern`."""
        start = re.compile(re.escape(pattern).replace(r"\{i\}", r"(\d{1,6})") + r"\..*")
        return len({match[1] for name in self.shapes if (match := start.fullmatch(name))})


def field(config: Mapping[str, Any], name: str, kind: type, measured: Any) -> Any:
    """The value in config.json, or the measured one where it has none."""
    value = config.get(name)
    if value is None:
        return measured
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 < value <= LARGEST or kind(value) != value:
        raise ConfigError(f"config.json: {name} {str(value)[:40]} cannot be; a positive {kind.__name__} is needed")
    return kind(value)
