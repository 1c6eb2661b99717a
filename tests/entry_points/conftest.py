"""What the tests of commands share."""

import pytest
from support.tiny_model import tiny_model

from pavdm_jax.checkpoints.model_folder import save_model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The folder of a tiny model."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    save_model(path, tiny_model())
    return str(path)
