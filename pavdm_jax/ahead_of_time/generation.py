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

from pavdm_jax import storage
from pavdm_jax.ahead_of_time.chips import GIB, parse_topology, topology_devices
from pavdm_jax.ahead_of_time.compile import Report, compile_program, place
from pavdm_jax.checkpoints.load import load
from pavdm_jax.config import OPEN_SORA_1_2
from pavdm_jax.diffusion.family_levels import guided_frames, repeated_frames, window_solver
from pavdm_jax.diffusion.sampler import sample_keys
from pavdm_jax.distributed.mesh import generation_mesh, make_mesh, use_mesh
from pavdm_jax.distributed.partitioning import replicated
from pavdm_jax.errors import ConfigError
from pavdm_jax.families import PUBLISHED, AnyModelConfig
from pavdm_jax.flops import peak_flops, shift_flops
from pavdm_jax.generation.programs import (
    Conditions,
    decode_frames,
    decode_next_frames,
    first_window,
    guidance_caption,
    run_segment,
)
from pavdm_jax.generation.progressive import make_plan
from pavdm_jax.generation.request import Request, has_two_halves, make_request
from pavdm_jax.geometry import latent_size
from pavdm_jax.models.attention import choose_backend
from pavdm_jax.models.model import DTYPES, abstract_params
from pavdm_jax.outputs import check_output
from pavdm_jax.text.layerwise_t5 import encoder_layer
from pavdm_jax.wan_config import WanModelConfig

UTILISATION = 0.4
"""The assumed share of the chip's peak FLOP/s in the estimates of seconds, recomputation included; not measured."""


@dataclass(frozen=True)
class CompileConfig:
    """What to compile, and for which chips."""

    compile_only: tuple[str, ...]
    """topologies, such as v4:1x1, v5e:1x1, h100:1, rtx4090:1"""
    programs: tuple[Literal["text", "shift", "decode"], ...] = ("text", "shift", "decode")
    """text is a layer of the text encoder; decoding takes long to compile"""
    checkpoint: str = OPEN_SORA_1_2.name
    """a model folder, or the name of a published model, whose weights are not needed: open-sora-1.2,
    skyreels-v2-df-1.3b, skyreels-v2-df-14b, skyreels-v2-df-14b-720p"""
    resolution: str | None = None
    """a named size; None: the model's own"""
    aspect_ratio: str | None = None
    """height to width of a named size"""
    height: int | None = None
    """in pixels, instead of a named size"""
    width: int | None = None
    """in pixels"""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """as of `pavdm --dtype`"""
    output: str | None = None
    """a JSON file for the numbers"""

    def __post_init__(self) -> None:
        if not self.compile_only:
            raise ConfigError("--compile-only needs the chips to compile for, such as v5e:1x1")
        for topology in self.compile_only:
            parse_topology(topology)


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


def programs(config: AnyModelConfig, request: Request, device: jax.Device) -> list[GenerationProgram]:
    """The programs for one video: a layer of the text encoder, a shift, and decoding a micro clip or chunk.

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
        "bias": None if t5.bias_in_every_layer else shape((t5.num_heads, tokens, tokens), jnp.float32),
    }
    transformer = params[config.transformer_part]
    features = shape((1, 1, tokens, config.t5.d_model), jnp.float32)
    caption = jax.eval_shape(
        functools.partial(guidance_caption, config=config, guided=request.guided, dtype=dtype),
        transformer,
        features,
        shape((1, 1), jnp.int32),
    )
    plan = make_plan(request).segment(0, 1)
    cell = (*latent_size(request.height, request.width, config.vae), config.vae.latent_channels)
    chunk = (config.window.chunk_size, *cell)
    keys = jax.eval_shape(lambda: sample_keys(request.seeds))
    first = jax.tree.map(lambda array: array[0], plan)
    solver = window_solver(config)
    begin = functools.partial(first_window, chunk=chunk)
    state = jax.eval_shape(begin, keys, jnp.zeros((1, 0, *cell)), first, None, solver)
    backend = choose_backend(device, dtype, config.transformer.head_width)
    number: Any = shape((), jnp.float32)  # in the place of the numbers
    scale = number if request.guided else None
    numbers = (number, number, number, scale)
    static = {
        "config": config,
        "dtype": dtype,
        "backend": backend,
        "guided_frames": guided_frames(config, request.told_size),
        "repeated_frames": repeated_frames(config, request.told_size),
    }
    conditions = Conditions(transformer, caption, *numbers, **static)
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
            {"conditions": conditions, "state": state, "plan": plan, "solver": solver},
            {},
            shift_flops(config, request.height, request.width),
        ),
        _decoding(config, params["vae"], cell, dtype),
    ]


def _decoding(config: AnyModelConfig, params: Any, cell: tuple[int, ...], dtype: Any) -> GenerationProgram:
    """Decoding a micro clip; of a causal VAE, the next chunk of a video."""
    if not isinstance(config, WanModelConfig):
        latents = jax.ShapeDtypeStruct((1, config.vae.decoded_together, *cell), jnp.float32)
        arrays = {"params": params, "latents": latents}
        return GenerationProgram("decode", decode_frames, arrays, {"config": config, "dtype": dtype})
    latents = jax.ShapeDtypeStruct((1, config.window.chunk_size, *cell), jnp.float32)
    static = {"config": config.vae, "dtype": dtype}
    first = functools.partial(decode_next_frames, **static)
    arrays = {"params": params, "latents": latents, "past": jax.eval_shape(first, params, latents)[1]}
    return GenerationProgram("decode", decode_next_frames, arrays, static)


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
    model = PUBLISHED.get(config.checkpoint) or load(config.checkpoint, parts=()).config
    sizes = ("resolution", "aspect_ratio", "height", "width")
    request = make_request(model, "a prompt", dtype=config.dtype, **{name: getattr(config, name) for name in sizes})
    results, two_halves = [], has_two_halves(request.guidance_scale, request.config.window)
    for topology in config.compile_only:
        chip, devices = parse_topology(topology)[1], topology_devices(topology)
        mesh = make_mesh(generation_mesh("auto", 1, len(devices), two_halves), devices)
        for program in programs(model, request, devices[0]):
            if program.name in config.programs:
                with use_mesh(mesh):
                    report = compile_program(
                        program.function, **place(program.arrays, replicated(mesh)), **program.static
                    )
                results.append(_result(topology, len(devices), request, program, report.within(chip)))
                each(results[-1])
    if config.output is not None:
        storage.write(Path(config.output), (json.dumps(results, indent=1) + "\n").encode())
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
