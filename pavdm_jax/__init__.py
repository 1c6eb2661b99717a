"""Progressive autoregressive video diffusion in JAX: minute-long videos with constant memory (arXiv 2410.08151)."""

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pavdm_jax.checkpoints.load import load
    from pavdm_jax.errors import ConfigError
    from pavdm_jax.generation.pipeline import generate, generate_stream
    from pavdm_jax.models.model import Model
    from pavdm_jax.video.writer import VideoWriter

# python -m pavdm_jax.train, before that module imports anything; not another program that imports this package
if sys.argv[:1] == ["-m"] and any(word.split(".")[0] == __name__ for word in sys.orig_argv):
    from pavdm_jax.interrupts import interrupt_in_one_line

    interrupt_in_one_line()

__version__ = "0.1.0"

__all__ = ["ConfigError", "Model", "VideoWriter", "__version__", "generate", "generate_stream", "load"]

_MODULES = {
    "ConfigError": "errors",
    "Model": "models.model",
    "generate": "generation.pipeline",
    "generate_stream": "generation.pipeline",
    "load": "checkpoints.load",
    "VideoWriter": "video.writer",
}


def __getattr__(name: str) -> Any:
    """Import the public names when they are used: importing takes seconds, and a command reports mistakes before."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """The public names, of which most are imported when they are used."""
    return sorted({*globals(), *__all__})
