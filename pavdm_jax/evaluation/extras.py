"""Libraries that only some metrics need: imported when they are used, with the remedy where they are missing."""

import importlib
from types import ModuleType

from pavdm_jax.errors import ConfigError


def import_extra(module: str, extra: str = "metrics") -> ModuleType:
    """The module; `ConfigError` if the extra of this package that brings it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{module} cannot be imported ({error}); install what the metrics need: pip install 'pavdm_jax[{extra}]'"
        ) from None
