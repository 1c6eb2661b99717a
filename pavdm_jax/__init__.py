"""Progressive autoregressive video diffusion in JAX: minute-long videos with constant memory (arXiv 2410.08151)."""

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pavdm_jax.checkpoints.load import load
    from pavdm_jax.generation.pipeline import generate, generate_stream
    from pavdm_jax.models.model import Model

if sys.argv[:1] == ["-m"]:  # python -m pavdm_jax.train, before that module imports anything
    from pavdm_jax.interrupts import interrupt_in_one_line

    interrupt_in_one_line()

__version__ = "0.1.0"

__all__ = ["Model", "__version__", "generate", "generate_stream", "load"]

_MODULES = {
    "Model": "models.model",
    "generate": "generation.pipeline",
    "generate_stream": "generation.pipeline",
    "load": "checkpoints.load",
}


def __getattr__(name: str) -> Any:
    """Import the public names when they are used: importing takes seconds, and a command reports mistakes before."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
