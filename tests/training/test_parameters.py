"""What a stage trains: parameters by their paths, and adapters."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.tiny_model import tiny_model

from pavdm_jax.checkpoints import lora
from pavdm_jax.checkpoints.fingerprint import params_fingerprint
from pavdm_jax.checkpoints.load import load
from pavdm_jax.checkpoints.model_folder import save_model
from pavdm_jax.config import tiny
from pavdm_jax.errors import ConfigError
from pavdm_jax.training.config import (
    LoRAConfig,
    ShapesData,
    Stage,
    TrainConfig,
    UniformDiffusion,
)
from pavdm_jax.training.parameters import join, split, trainable
from pavdm_jax.training.trained_with import level_patterns


def test_parameters_are_split_by_prefix_and_put_together_again():
    params = {"a": {"b": 1, "bc": 2}, "d": 3}
    trained, frozen = split(params, ("a/b", "d"))
    assert trained == {"a/b": 1, "d": 3}
    assert join(trained, frozen) == params
    assert split(params, ("a",), freeze=("a/b",))[0] == {"a/bc": 2}
    with pytest.raises(ConfigError, match="train names 'e', which is no part"):
        split(params, ("e",))
    with pytest.raises(ConfigError, match="freeze names 'e', which is no part"):
        split(params, ("a",), freeze=("e",))
    with pytest.raises(ConfigError, match="leaves nothing"):
        split(params, ("a",), freeze=("a",))


# --- adapters ---------------------------------------------------------------------------------------------------------

ADAPTED = Stage(
    "adapt",
    UniformDiffusion(clip_chunks=1, masks=None, caption_dropout=0.0),
    ShapesData(17),
    ("stdit3",),
    steps=1,
    batch_size=1,
    lora=LoRAConfig(rank=2, alpha=4.0, layers=("qkv", "mlp_in")),
)


def test_adapters_change_nothing_at_first_and_get_gradients():
    params = tiny_model().params
    adapters, frozen, assemble = trainable(params, ADAPTED)
    assert set(join(frozen)) == set(params)
    assert len(adapters) == 8  # two layers of a spatial and a temporal block, two factors each
    jax.tree.map(np.testing.assert_array_equal, assemble(adapters, frozen), params)
    gradients = jax.jit(
        jax.grad(lambda a: jnp.sum(jnp.square(assemble(a, frozen)["stdit3"]["blocks"]["spatial"]["qkv"]["kernel"])))
    )(adapters)
    assert np.abs(gradients["stdit3/blocks/spatial/qkv/kernel/b"]).max() > 0
    assert not np.asarray(gradients["stdit3/blocks/temporal/qkv/kernel/b"]).any()


def test_saved_adapters_are_merged_when_a_model_is_loaded(tmp_path):
    model = tiny_model()
    save_model(tmp_path / "base", model)
    adapters = trainable(model.params, ADAPTED).trained
    adapters = {name: x + 0.1 for name, x in adapters.items()}
    patterns = level_patterns(model.config, ADAPTED.objective)
    found = lora.Adapters(adapters, 4.0, params_fingerprint(model.transformer), trained_with=patterns)
    lora.save(tmp_path / lora.FILE, found)
    merged = load(tmp_path / "base", lora=tmp_path)
    assert merged.trained_with == patterns
    name = "stdit3/blocks/spatial/qkv/kernel"
    before, after = (np.asarray(m.params["stdit3"]["blocks"]["spatial"]["qkv"]["kernel"]) for m in (model, merged))
    expected = before + 4.0 / 2 * np.einsum("pir,pro->pio", adapters[f"{name}/a"], adapters[f"{name}/b"])
    np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-6)
    half = load(tmp_path / "base", dtype="bfloat16", lora=tmp_path)
    assert half.params["stdit3"]["blocks"]["spatial"]["qkv"]["kernel"].dtype == jnp.bfloat16
    with pytest.raises(ConfigError, match="trained on another model"):
        lora.apply(merged, tmp_path)
    with pytest.raises(ConfigError, match="there are no LoRA adapters"):
        lora.apply(model, tmp_path / "nowhere")
    (tmp_path / lora.FILE).write_bytes(b"no")
    with pytest.raises(ConfigError, match="is not a file of LoRA adapters"):
        lora.apply(model, tmp_path)


def test_adapters_that_cannot_be_are_refused():
    wrong = dataclasses.replace(ADAPTED, lora=LoRAConfig(layers=("qvk",)))
    with pytest.raises(ConfigError, match=r"lora\.layers names 'qvk'"):
        trainable(tiny_model().params, wrong)
    with pytest.raises(ConfigError, match="with init_from"):
        TrainConfig(tiny(), (ADAPTED,))
