"""Programs compiled from shapes alone: here for the CPU, whose compiler is always there; names of topologies."""

import importlib.util
import json

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import SingleDeviceSharding

from pavdm_jax.ahead_of_time.chips import CHIPS, GIB, parse_topology, topology_devices
from pavdm_jax.ahead_of_time.compile import Report, compile_program, place
from pavdm_jax.ahead_of_time.generation import CompileConfig, compile_only, programs, row
from pavdm_jax.config import tiny
from pavdm_jax.errors import ConfigError
from pavdm_jax.generation.request import make_request
from pavdm_jax.models.attention import FLASH_MIN_KEYS, attention, choose_backend
from pavdm_jax.wan_config import tiny_wan

TINY = {config.name: config for config in (tiny(), tiny_wan())}
"""In the place of the published models."""


def test_memory_is_what_the_shapes_take():
    sharding = SingleDeviceSharding(jax.local_devices()[0])
    shapes = place((jax.ShapeDtypeStruct((1000, 1000), jnp.float32),) * 2, sharding)
    report = compile_program(jax.jit(lambda a, b: (a @ b).sum()), *shapes)
    assert report.arguments == 8_000_000
    assert report.outputs == 4
    assert report.total >= 8_000_004
    donated = compile_program(jax.jit(lambda a: a + 1, donate_argnums=0), shapes[0])
    assert (donated.aliased, donated.total) == (4_000_000, 4_000_000 + donated.temporaries)


def test_a_shape_that_is_wrong_is_no_lack_of_memory():
    with pytest.raises(TypeError):
        compile_program(jax.jit(lambda a, b: a @ b), *(jax.ShapeDtypeStruct((2, 3), jnp.float32),) * 2)


def test_topologies_are_read_and_mistakes_named():
    assert parse_topology("v4:2x2x4") == ("2x2x4", CHIPS["v4"])
    assert parse_topology("h100:8") == ("8", CHIPS["h100"])
    with pytest.raises(ConfigError, match="write a chip and a layout"):
        parse_topology("v4")
    with pytest.raises(
        ConfigError, match="there is no chip 'v9'; known are v4, v5e, v5p, v6e, a100, h100, h200, rtx4090"
    ):
        parse_topology("v9:1x1")


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="the TPU compiler is installed")
def test_without_the_tpu_compiler_the_remedy_is_named():
    with pytest.raises(ConfigError, match="pip install libtpu"):
        topology_devices("v5e:1x1")


@pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda12_plugin") is not None, reason="the compiler for GPUs is installed"
)
def test_without_the_gpu_compiler_the_remedy_is_named():
    with pytest.raises(ConfigError, match=r"cannot compile for h100:8 .* \(pip install 'jax\[cuda12\]'\)"):
        topology_devices("h100:8")
    with pytest.raises(ConfigError, match="'h100:1x2x4' has one number too many; write hosts x GPUs of each"):
        topology_devices("h100:1x2x4")


def test_a_program_that_is_too_large_for_a_chip_says_so():
    chip = CHIPS["rtx4090"]
    assert Report(temporaries=int(17 * GIB)).within(chip).problem == ""
    assert Report(temporaries=int(18 * GIB)).within(chip).problem == "does not fit: 18.00G of 17.62G"


@pytest.fixture
def on_this_machine(monkeypatch):
    monkeypatch.setattr("pavdm_jax.ahead_of_time.generation.topology_devices", lambda name: jax.local_devices())
    monkeypatch.setattr("pavdm_jax.ahead_of_time.generation.PUBLISHED", TINY)


@pytest.mark.parametrize("checkpoint", TINY)
def test_the_programs_of_generation_compile_from_shapes(on_this_machine, tmp_path, checkpoint):
    output, seen = tmp_path / "numbers.json", []
    config = CompileConfig(("v5p:1x1x1",), checkpoint=checkpoint, resolution="144p", output=str(output))
    results = compile_only(config, seen.append)
    assert results == seen == json.loads(output.read_text())
    assert [result["program"] for result in results] == ["text", "shift", "decode"]
    assert all(result["total"] > 0 and not result["problem"] for result in results)
    assert [bool(result["flops"]) for result in results] == [False, True, False]
    assert all(row(result).startswith("v5p:1x1x1") for result in results)


def test_half_precision_halves_the_parameters():
    sizes = {}
    for dtype in ("float32", "bfloat16"):
        request = make_request(tiny(), "a prompt", dtype=dtype)
        arrays = {program.name: program.arrays for program in programs(tiny(), request, jax.local_devices()[0])}
        arrays = {
            name: given["conditions"].params if name == "shift" else given["params"] for name, given in arrays.items()
        }
        sizes[dtype] = {
            name: sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(params)) for name, params in arrays.items()
        }
    assert sizes["float32"] == {name: 2 * size for name, size in sizes["bfloat16"].items()}


def test_a_program_that_does_not_fit_has_a_row():
    numbers = {"topology": "v5e:1x1", "program": "shift", "size": "240x424", "dtype": "float32", "flops": 0}
    numbers |= {"arguments": 0, "temporaries": 0, "total": 0, "limit": GIB, "compile_seconds": 1.0}
    assert "does not fit" in row(numbers | {"problem": Report(problem="does not fit").problem})


@pytest.mark.other_chips
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="the TPU compiler, libtpu, is not installed")
@pytest.mark.parametrize(("topology", "keys"), [("v5e:1x1", 3600), ("v6e:1x1", 3600), ("v5e:1x1", 300)])
def test_on_tpus_the_kernel_never_has_all_logits(topology, keys):
    """As STDiT3-XL/2 asks for them: queries of a frame of 720p, and keys of a frame, or of the tokens of a caption."""
    device = topology_devices(topology)[0]
    assert choose_backend(device, jnp.bfloat16, 72) == "pallas"
    q, kv = ((5, tokens, 16, 72) for tokens in (3600, keys))
    logits = 4 * 5 * 16 * 3600 * keys  # bytes, in float32

    def memory(backend, program):
        def call(q, k, v):
            return attention(q, k, v, backend=backend, axes=(None,) * 4)

        shapes = place(tuple(jax.ShapeDtypeStruct(s, jnp.bfloat16) for s in (q, kv, kv)), SingleDeviceSharding(device))
        return compile_program(jax.jit(program(call)), *shapes).temporaries

    def gradients(call):
        return jax.grad(lambda *qkv: call(*qkv).astype(jnp.float32).sum(), argnums=(0, 1, 2))

    for program in (lambda call: call, gradients):
        plain, kernel = memory("xla", program), memory("pallas", program)
        if keys < FLASH_MIN_KEYS:
            assert kernel == plain
        else:
            assert plain > logits / 2 > kernel


@pytest.mark.other_chips
@pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda12_plugin") is None, reason="the compiler for GPUs is not installed"
)
def test_a_shift_is_compiled_for_one_gpu_and_for_eight(monkeypatch):
    monkeypatch.setattr("pavdm_jax.ahead_of_time.generation.PUBLISHED", TINY)
    config = CompileConfig(("h100:1", "h100:8"), ("shift",), checkpoint="tiny", resolution="144p")
    one, eight = compile_only(config, lambda _: None)
    assert not one["problem"] and not eight["problem"]
    assert not one["collectives"] and "all-to-all" in eight["collectives"]
    assert eight["estimated_seconds"] == one["estimated_seconds"] / 8
