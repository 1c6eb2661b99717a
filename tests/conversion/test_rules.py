"""The table of names: every mismatch is reported at once, nothing is skipped."""

from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from support.pytorch_layout import to_params, to_tensors

from pavdm_jax.conversion.open_sora import rotary_frequencies
from pavdm_jax.conversion.rules import Rule, WeightsError, linear

RULES = [*linear("layers.{i}.fc", "layers/fc"), Rule("scale", "scale"), Rule("constant", "")]
EXPECTED = {
    "layers": {
        "fc": {"kernel": jax.ShapeDtypeStruct((2, 3, 4), np.float32), "bias": jax.ShapeDtypeStruct((2, 4), np.float32)}
    },
    "scale": jax.ShapeDtypeStruct((5,), np.float32),
}


def tensors():
    rng = np.random.default_rng(0)
    layers = {f"layers.{i}.fc.weight": rng.normal(size=(4, 3)).astype(np.float32) for i in range(2)}
    layers |= {f"layers.{i}.fc.bias": rng.normal(size=4).astype(np.float32) for i in range(2)}
    return layers | {"scale": np.arange(5, dtype=np.float32), "constant": np.zeros(1)}


def test_layers_are_stacked_and_come_back():
    given = tensors()
    params = to_params(RULES, given, EXPECTED)
    np.testing.assert_array_equal(params["layers"]["fc"]["kernel"][1], given["layers.1.fc.weight"].T)
    back = to_tensors(RULES, params)
    assert set(back) == set(given) - {"constant"}
    for name, tensor in back.items():
        np.testing.assert_array_equal(tensor, given[name])


def test_all_mismatches_are_reported_together():
    given = tensors()
    del given["layers.0.fc.weight"]
    given["stranger"] = np.zeros((2, 2))
    given["layers.2.fc.bias"] = np.zeros(4)
    given["scale"] = np.zeros(6)
    with pytest.raises(WeightsError) as caught:
        to_params(RULES, given, EXPECTED)
    for part in (
        "missing tensor layers.0.fc.weight",
        "unknown tensor stranger [2, 2]",
        "unknown tensor layers.2.fc.bias",
        "[6]",
    ):
        assert part in str(caught.value)


def test_a_parameter_that_no_rule_fills_is_reported():
    with pytest.raises(WeightsError, match="no rule fills the parameter extra"):
        to_params(RULES, tensors(), {**EXPECTED, "extra": jax.ShapeDtypeStruct((1,), np.float32)})


@pytest.mark.parametrize(("golden", "different"), [("stdit3_a", 0), ("stdit3_b", 1)])
def test_the_rotary_frequencies_are_pytorchs_but_for_the_last_bit_of_one(golden, different):
    """Of STDiT3-XL/2's head width, 72, and of a narrow one: exporting writes them, no model folder stores them."""
    stored = load_file(Path(__file__).parents[1] / "golden" / f"{golden}.safetensors")["weights/rope.freqs"]
    ours = np.asarray(rotary_frequencies(2 * len(stored)), np.float32)
    np.testing.assert_array_max_ulp(ours, stored, maxulp=1)
    assert np.count_nonzero(ours != stored) == different
