"""Progressive autoregressive video diffusion in JAX: minute-long videos with constant memory (arXiv 2410.08151)."""

from pavdm_jax.checkpoints.load import load
from pavdm_jax.generation.pipeline import generate, generate_stream
from pavdm_jax.models.model import Model

__version__ = "0.1.0"

__all__ = ["Model", "__version__", "generate", "generate_stream", "load"]
