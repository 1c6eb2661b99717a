"""Fingerprints: one rule that notices whatever matters, and nothing else."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.tiny_model import tiny_model

from pavdm_jax.checkpoints.fingerprint import (
    fingerprint,
    model_fingerprint,
    params_fingerprint,
    text_fingerprint,
    vae_fingerprint,
)
from pavdm_jax.checkpoints.load import load
from pavdm_jax.checkpoints.model_folder import save_model
from pavdm_jax.checkpoints.run_folder import check_base
from pavdm_jax.errors import ConfigError
from pavdm_jax.models.model import Model


def with_part(model: Model, part: str, change) -> Model:
    return model.replace(params={**model.params, part: jax.tree.map(change, model.params[part])})


def test_configs_texts_and_numbers_enter_whole_and_in_their_places():
    config = tiny_model().config
    assert fingerprint(config) == fingerprint(dataclasses.asdict(config))
    assert fingerprint(config) != fingerprint(dataclasses.replace(config, fps=config.fps + 1))
    assert fingerprint("ab", "c") != fingerprint("a", "bc")
    assert fingerprint(b"1") != fingerprint(b"1", b"")


@pytest.mark.parametrize("shape", [(), (1,), (5000,), (3, 70, 90), (2, 3, 3, 40, 40)])
def test_a_change_of_either_end_of_an_array_is_noticed_where_its_grid_has_it(shape):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    changed = values.copy()
    changed[(0,) * len(shape)] += 1
    assert params_fingerprint({"a": jnp.asarray(changed)}) != params_fingerprint({"a": jnp.asarray(values)})
    assert params_fingerprint({"b": jnp.asarray(values)}) != params_fingerprint({"a": jnp.asarray(values)})


def test_training_of_the_last_layers_alone_is_noticed():
    """As of all layers but the first, which the first values of a stacked array do not show."""
    layers = np.random.default_rng(0).normal(size=(4, 100, 100)).astype(np.float32)
    trained = layers.copy()
    trained[1:] += 0.01 * np.random.default_rng(1).normal(size=(3, 100, 100))
    assert params_fingerprint({"a": jnp.asarray(trained)}) != params_fingerprint({"a": jnp.asarray(layers)})


def test_the_dtype_in_memory_tells_models_apart_but_not_their_parameters():
    model = tiny_model()
    half = with_part(model, "stdit3", lambda x: x.astype(jnp.bfloat16))
    assert params_fingerprint(half.params["stdit3"]) == params_fingerprint(model.params["stdit3"])
    assert model_fingerprint(half) != model_fingerprint(model)


def test_every_network_and_the_tokenizer_make_another_model():
    model = tiny_model()
    same = {model_fingerprint(model), model_fingerprint(model.replace(folder="elsewhere"))}
    assert len(same) == 1
    for part in model.params:
        assert model_fingerprint(with_part(model, part, lambda x: x + 1)) not in same
    other = model.replace(config=dataclasses.replace(model.config, fps=12))
    assert model_fingerprint(other) not in same
    decoder = jax.tree.map_with_path(
        lambda path, x: x + 1 if "decoder" in jax.tree_util.keystr(path) else x, model.params["vae"]
    )
    trained = model.replace(params={**model.params, "vae": decoder})
    assert vae_fingerprint(trained) == vae_fingerprint(model)
    assert model_fingerprint(trained) not in same


def test_a_text_encoder_on_disk_is_known_by_what_it_was_converted_from(tmp_path):
    """The files of two conversions of the same weights have other names; those of other weights have other
    checksums."""
    save_model(tmp_path / "a", tiny_model())
    save_model(tmp_path / "b", tiny_model())
    a, b = load(tmp_path / "a"), load(tmp_path / "b")
    assert "t5" not in a.params
    assert model_fingerprint(a) != model_fingerprint(b)  # saved, not converted: known by the files alone
    for folder, checksum in (("a", "1"), ("b", "1")):
        _note_source(tmp_path / folder, checksum)
    assert model_fingerprint(a) == model_fingerprint(b)
    _note_source(tmp_path / "b", "2")
    assert model_fingerprint(a) != model_fingerprint(b)
    assert text_fingerprint(a.replace(tokenizer=None)) != text_fingerprint(a)


def _note_source(folder, checksum):
    record = json.loads((folder / "parts.json").read_text())
    record["t5"] |= {"source_files": {"model.safetensors": {"bytes": 1, "sha256": checksum}}, "dtype": "float32"}
    (folder / "parts.json").write_text(json.dumps(record))


def test_checkpoints_of_earlier_versions_say_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match="written by an earlier version of pavdm_jax; finish that run"):
        check_base({"base": "demo", "digests": {"vae": "1"}}, {"vae": "1"}, tmp_path)
    with pytest.raises(ConfigError, match="whose vae changed since"):
        check_base({"base": "demo", "fingerprints": {"vae": "1"}}, {"vae": "2"}, tmp_path)
    check_base({"base": "demo", "fingerprints": {"vae": "1"}}, {"vae": "1"}, tmp_path)
