"""What tells models apart."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np

from pavdm_jax.checkpoints.config_json import to_json
from pavdm_jax.models.model import Model


def digest(params: dict) -> str:
    """Tells parameters apart, whatever dtype they were loaded in: of the first values of every one."""
    made = hashlib.sha256()
    for values in jax.device_get(_first_values(jax.tree.leaves(params))):
        made.update(values.astype(np.float32).tobytes())
    return made.hexdigest()[:16]


@jax.jit
def _first_values(leaves: list[jax.Array]) -> list[jax.Array]:
    return [leaf.ravel()[:64].astype(jnp.bfloat16) for leaf in leaves]


def fingerprint(model: Model) -> str:
    """Tells models apart: a digest of the config and of the first values of every parameter."""
    digest = hashlib.sha256(to_json(model.config).encode())
    digest.update(model.tokenizer.model_bytes if model.tokenizer else b"")
    for leaf in jax.tree.leaves(model.params):
        digest.update(np.asarray(leaf.ravel()[:64], np.float32).tobytes())
    return digest.hexdigest()[:16]
