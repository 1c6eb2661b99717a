"""Memory of generation on chips of other machines: `pavdm benchmark --compile-only v5e:1x1 v4:1x1 h100:1`.

The programs of generation are compiled for the chips of each topology, from shapes alone; several chips split the work
as with `--mesh auto`.
"""

import functools
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp

from pavdm_jax.ahead_of_time.chips import GIB, parse_topology, topology_devices
from pavdm_jax.ahead_of_time.compile import Report, compile_program, place
from pavdm_jax.checkpoints.load import load
from pavdm_jax.config import OPEN_SORA_1_2, ModelConfig
from pavdm_jax.diffusion.sampler import sample_keys
from pavdm_jax.distributed.mesh import generation_mesh, make_mesh, use_mesh
from pavdm_jax.distributed.partitioning import replicated
from pavdm_jax.errors import ConfigError
from pavdm_jax.flops import peak_flops, shift_flops
from pavdm_jax.generation.programs import Conditions, decode_frames, first_window, guidance_caption, run_segment
from pavdm_jax.generation.progressive import make_plan
from pavdm_jax.generation.request import Request, make_request
from pavdm_jax.geometry import latent_size
from pavdm_jax.models.attention import choose_backend
from pavdm_jax.models.model import DTYPES, abstract_params
from pavdm_jax.outputs import check_output
from pavdm_jax.text.layerwise_t5 import encoder_layer

UTILISATION = 0.4
"""The assumed share of the chip's peak FLOP/s in the estimates of seconds; it is not measured."""


@dataclass(frozen=True)
class CompileConfig:
    """What to compile, and for which chips."""

    compile_only: tuple[str, ...]
    """topologies, such as v4:1x1, v5e:1x1, h100:1, rtx4090:1"""
    programs: tuple[Literal["text", "shift", "decode"], ...] = ("text", "shift", "decode")
    """text is a layer of the text encoder; decoding takes long to compile"""
    checkpoint: str = OPEN_SORA_1_2.name
    """a model folder, or open-sora-1.2, whose weights are not needed"""
    resolution: str = "240p"
    """a named size"""
    aspect_ratio: str = "9:16"
    """height to width"""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """as of `pavdm --dtype`"""
    output: str | None = None
    """a JSON file for the numbers"""

    def __post_init__(self) -> None:
        if not self.compile_only:
            raise ConfigError("--compile-only needs the chips to compile for, such as v5e:1x1")


@dataclass(frozen=True)
class GenerationProgram:
    """A compiled program of generation, and the shapes that it is called with.

    `flops` is 0 where they are not counted.
    """

    name: str
    function: Any
    arrays: dict[str, Any]
    static: dict[str, Any]
    flops: int = 0


def programs(config: ModelConfig, request: Request, device: jax.Device) -> list[GenerationProgram]:
    """The programs for one video: a layer of the text encoder, a shift, and decoding a micro clip.

    Args:
      config: the architecture.
      request: of one video; parameters are in its dtype.
      device: one of those for which the programs are compiled.
    """
    dtype, tokens, t5 = DTYPES[request.dtype], config.text.max_tokens, config.t5
    shape = jax.ShapeDtypeStruct
    params = jax.tree.map(lambda x: shape(x.shape, dtype), abstract_params(config))
    layer = jax.tree.map(lambda x: shape(x.shape[1:], x.dtype), params["t5"]["layers"])
    text = {
        "x": shape((1, tokens, t5.d_model), jnp.float32),
        "bias": shape((t5.num_heads, tokens, tokens), jnp.float32),
    }
    features = shape((1, 1, tokens, config.t5.d_model), jnp.float32)
    caption = jax.eval_shape(
        functools.partial(guidance_caption, config=config, guided=request.guided),
        params["stdit3"],
        features,
        shape((1, 1), jnp.int32),
    )
    plan = make_plan(request).segment(0, 1)
    cell = (*latent_size(request.height, request.width, config.vae), config.vae.latent_channels)
    chunk = (config.window.chunk_size, *cell)
    keys = jax.eval_shape(lambda: sample_keys(request.seeds))
    first = jax.tree.map(lambda array: array[0], plan)
    state = jax.eval_shape(functools.partial(first_window, chunk=chunk), keys, jnp.zeros((1, 0, *cell)), first)
    backend = choose_backend(device, dtype, config.stdit3.head_width)
    number: Any = shape((), jnp.float32)  # in the place of the numbers
    scale = number if request.guided else None
    conditions = Conditions(
        params["stdit3"], caption, number, number, number, scale, config=config, dtype=dtype, backend=backend
    )
    return [
        GenerationProgram(
            "text",
            encoder_layer,
            {"params": layer, **text, "is_token": shape((1, tokens), jnp.bool_)},
            {"config": t5, "dtype": dtype},
        ),
        GenerationProgram(
            "shift",
            run_segment,
            {"conditions": conditions, "state": state, "plan": plan},
            {},
            shift_flops(config, request.height, request.width),
        ),
        GenerationProgram(
            "decode",
            decode_frames,
            {"params": params["vae"], "latents": shape((1, config.vae.micro_latents, *cell), jnp.float32)},
            {"config": config, "num_frames": config.vae.micro_frames},
        ),
    ]


def compile_only(config: CompileConfig, each: Callable[[dict], None]) -> list[dict]:
    """Compile all programs for all chips.

    Args:
      config: what to compile.
      each: called with each result.

    Returns:
      A dict of JSON values for each chip and program, with memory in bytes.

    Raises:
      ConfigError: a topology, the model or the output cannot be used.
    """
    if config.output is not None:
        check_output(config.output, (".json",))
    model = OPEN_SORA_1_2 if config.checkpoint == OPEN_SORA_1_2.name else load(config.checkpoint, parts=()).config
    request = make_request(
        model, "a prompt", resolution=config.resolution, aspect_ratio=config.aspect_ratio, dtype=config.dtype
    )
    results = []
    for topology in config.compile_only:
        chip, devices = parse_topology(topology)[1], topology_devices(topology)
        mesh = make_mesh(generation_mesh("auto", 1, len(devices), request.guided), devices)
        for program in programs(model, request, devices[0]):
            if program.name in config.programs:
                with use_mesh(mesh):
                    report = compile_program(
                        program.function, **place(program.arrays, replicated(mesh)), **program.static
                    )
                results.append(_result(topology, len(devices), request, program, report.within(chip)))
                each(results[-1])
    if config.output is not None:
        Path(config.output).write_text(json.dumps(results, indent=1) + "\n")
    return results


def _result(topology: str, devices: int, request: Request, program: GenerationProgram, report: Report) -> dict:
    chip = parse_topology(topology)[1]
    peak = peak_flops(chip.kind)
    assert peak is not None, chip  # the table of peaks has every chip
    return {
        "topology": topology,
        "program": program.name,
        "size": f"{request.height}x{request.width}",
        "dtype": request.dtype,
        **asdict(report),
        "total": report.total,
        "limit": int(chip.memory_gib * GIB),
        "flops": program.flops,
        "estimated_seconds": program.flops / (UTILISATION * peak * devices),
    }


HEADER = (
    f"{'chip':9} {'program':7} {'size':>9} {'dtype':>8} {'arguments':>9} {'temporary':>9} {'total':>6} "
    f"{'limit GiB':>9} {'compile s':>9} {'TFLOP':>7} {f'estimated s at {UTILISATION:.0%}':>22}"
)


def row(result: dict) -> str:
    """A line of the table, with memory in GiB."""
    arguments, temporaries, total, limit = (
        result[name] / GIB for name in ("arguments", "temporaries", "total", "limit")
    )
    counted = f"{result['flops'] / 1e12:7.1f} {result['estimated_seconds']:22.2f}" if result["flops"] else ""
    memory = result["problem"] or f"{arguments:9.2f} {temporaries:9.2f} {total:6.2f}"
    return (
        f"{result['topology']:9} {result['program']:7} {result['size']:>9} {result['dtype']:>8} {memory:26} "
        f"{limit:9.2f} {result['compile_seconds']:9.0f} {counted}"
    )
