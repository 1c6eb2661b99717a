"""Orbax's format as it is written by hand, layer by layer: exactly as the installed Orbax writes it, and Orbax itself
reads it."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tensorstore

from pavdm_jax import storage
from pavdm_jax.checkpoints.layers import PartReader, PartWriter, stored_arrays

TREE = {
    "blocks": {"kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4)},
    "table": np.arange(5).astype(jnp.bfloat16),
    "zeros": np.zeros((2, 3), np.float32),
}
STACKED = {"blocks/kernel"}
NAMES = ["blocks/kernel", "table", "zeros"]


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ours") / "part"
    writer = PartWriter(folder, jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), TREE), STACKED)
    for layer, values in enumerate(TREE["blocks"]["kernel"]):
        writer.write("blocks/kernel", layer, values)
    writer.write("table", 0, TREE["table"])
    writer.write("zeros", 0, TREE["zeros"])
    writer.close()
    return folder


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("theirs") / "part"
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder, jax.tree.map(jnp.asarray, TREE))
    return folder


def as_json(folder, name):
    return json.loads((folder / name).read_text())


def array_settings(folder, name):
    store = {"driver": "ocdbt", "base": storage.kvstore(folder), "path": name.replace("/", ".") + "/"}
    return json.loads(tensorstore.KvStore.open(store).result()[".zarray"])


def test_what_orbax_notes_about_the_arrays_is_what_it_would_have_written(ours, theirs):
    assert as_json(ours, "_METADATA") == as_json(theirs, "_METADATA")
    assert as_json(ours, "_sharding") == as_json(theirs, "_sharding")
    handlers = [as_json(folder, "_CHECKPOINT_METADATA")["item_handlers"] for folder in (ours, theirs)]
    assert handlers[0] == handlers[1]
    needed = {"_METADATA", "_CHECKPOINT_METADATA", "_sharding", "manifest.ocdbt", "d", "commit_success.txt"}
    assert {path.name for path in ours.iterdir()} == needed
    assert {path.name for path in theirs.iterdir()} - needed == {"array_metadatas", "ocdbt.process_0"}


@pytest.mark.parametrize("name", NAMES)
def test_arrays_have_orbaxs_settings_but_for_a_chunk_a_layer(ours, theirs, name):
    settings, expected = array_settings(ours, name), array_settings(theirs, name)
    if name in STACKED:
        assert settings.pop("chunks") == [1, *expected.pop("chunks")[1:]]
    assert settings == expected


def test_orbax_restores_it(ours):
    with ocp.StandardCheckpointer() as checkpointer:
        restored = checkpointer.restore(ours, jax.tree.map(jnp.zeros_like, TREE))
        described = checkpointer.metadata(ours).item_metadata
    jax.tree.map(np.testing.assert_array_equal, restored, TREE)
    assert tuple(described["blocks"]["kernel"].shape) == (2, 3, 4)
    assert {name: (x.shape, x.dtype) for name, x in stored_arrays(ours).items()} == {
        "blocks/kernel": ((2, 3, 4), np.dtype(np.float32)),
        "table": ((5,), jnp.dtype(jnp.bfloat16)),
        "zeros": ((2, 3), np.dtype(np.float32)),
    }


def test_a_layer_is_read_alone_from_what_orbax_wrote(ours, theirs):
    for folder in (ours, theirs):
        np.testing.assert_array_equal(PartReader(folder).read("blocks/kernel", 1), TREE["blocks"]["kernel"][1])
        np.testing.assert_array_equal(PartReader(folder).read("table", None), TREE["table"])
