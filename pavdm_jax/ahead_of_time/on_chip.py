"""What this machine's accelerator does with a model of published size: `pavdm benchmark --real --output FILE.json`.

Weights are random, so nothing is downloaded: what is measured does not depend on their values. One command for whoever
has a chip; it takes some minutes, and each number is printed as soon as it is known.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pavdm_jax.ahead_of_time.chips import GIB
from pavdm_jax.ahead_of_time.training import abstract_program
from pavdm_jax.cli import enable_cache
from pavdm_jax.config import OPEN_SORA_1_2, ModelConfig
from pavdm_jax.data.config import LatentData
from pavdm_jax.diffusion.objectives import ProgressiveDiffusion
from pavdm_jax.distributed.mesh import make_mesh, train_mesh, use_mesh
from pavdm_jax.distributed.placement import on_host, place_params
from pavdm_jax.errors import ConfigError, first_line
from pavdm_jax.families import PUBLISHED, AnyModelConfig
from pavdm_jax.flops import peak_flops, shift_flops, train_flops
from pavdm_jax.generation.progressive import ProgressiveStream
from pavdm_jax.generation.prompts import PromptFeatures
from pavdm_jax.generation.request import Request, make_request
from pavdm_jax.models.model import DTYPES, Model, abstract_params, in_dtype
from pavdm_jax.models.networks import networks
from pavdm_jax.outputs import check_output
from pavdm_jax.training.config import OptimizerConfig, Stage, TrainConfig

MINUTE = 1440
"""Pixel frames for which the whole time is estimated."""

SHIFTS = 5
"""Shifts that are timed."""

MOST_CLIPS = 64
"""The largest batch of training that is tried."""


@dataclass(frozen=True)
class RealConfig:
    """What to measure on the accelerator of this machine, with random weights."""

    family: str = OPEN_SORA_1_2.name
    """a published model by name: open-sora-1.2, skyreels-v2-df-1.3b, skyreels-v2-df-14b, skyreels-v2-df-14b-720p"""
    height: int | None = None
    """in pixels; the model's own by default"""
    width: int | None = None
    """in pixels"""
    dtype: str = "bfloat16"
    """as of `pavdm --dtype`"""
    scale: float = 1.0
    """makes the networks and the frames smaller, to try the command on a small machine: depth, width and size of frames
    times it, from 0.01 to 1"""
    minutes: float = 8.0
    """after which no further measurement is begun"""
    output: str | None = None
    """a JSON file for the numbers"""

    def __post_init__(self) -> None:
        if self.family not in PUBLISHED:
            raise ConfigError(f"--family {self.family} is not known; use {', '.join(PUBLISHED)}")
        if not 0.01 <= self.scale <= 1:
            raise ConfigError(f"--scale must be from 0.01 to 1, not {self.scale}")
        if self.dtype not in DTYPES:
            raise ConfigError(f"--dtype {self.dtype} is not possible; use {' or '.join(DTYPES)}")
        if not self.minutes > 0:
            raise ConfigError(f"--minutes must be above 0, not {self.minutes}")
        if self.output is not None:
            check_output(self.output, (".json",))


def scaled(config: AnyModelConfig, scale: float) -> AnyModelConfig:
    """A model of smaller networks and frames, with heads of the same width; 1 changes nothing."""
    if scale == 1:
        return config

    def part(value: int, unit: int = 1) -> int:
        return max(unit, round(value * scale / unit) * unit)

    transformer = config.transformer
    heads = part(transformer.num_heads)
    width: dict[str, Any] = {"depth": part(transformer.depth), "num_heads": heads}
    width["hidden_size"] = heads * transformer.head_width
    size = {"height": part(config.height, 16), "width": part(config.width, 16)}
    if isinstance(config, ModelConfig):
        spatial, temporal = config.vae.spatial, config.vae.temporal
        channels = tuple(part(c, spatial.num_groups) for c in spatial.block_channels)
        vae = dataclasses.replace(
            config.vae,
            spatial=dataclasses.replace(spatial, block_channels=channels),
            temporal=dataclasses.replace(temporal, filters=part(temporal.filters, temporal.num_groups)),
        )
        return dataclasses.replace(config, stdit3=dataclasses.replace(config.stdit3, **width), vae=vae, **size)
    wan = dataclasses.replace(config.wan, mlp_size=part(config.wan.mlp_size), **width)
    vae = dataclasses.replace(config.vae, base_channels=part(config.vae.base_channels, 4))
    return dataclasses.replace(config, wan=wan, vae=vae, **size)


def random_like(shapes: Any, seed: int = 0) -> Any:
    """A tree of small random arrays of such shapes, on the first device; whole numbers are 0."""
    # Drawn by NumPy: to compile a program that draws a whole network takes minutes.
    rng = np.random.default_rng(seed)

    def draw(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.zeros(leaf.shape, leaf.dtype)
        return jnp.asarray(0.02 * rng.standard_normal(leaf.shape, np.float32), leaf.dtype)

    return jax.tree.map(draw, shapes)


def measure_chip(config: RealConfig, tell: Callable[[str], None] = print) -> dict[str, Any]:
    """Measure, and tell each number as it comes.

    Returns:
      All numbers, by name; times in seconds. What did not fit the memory, or the time, is a text that says so.
    """
    enable_cache()
    began, device = time.perf_counter(), jax.local_devices()[0]
    model = scaled(PUBLISHED[config.family], config.scale)
    size = {name: getattr(config, name) for name in ("height", "width") if getattr(config, name) is not None}
    request = make_request(model, "a prompt", frames=MINUTE, dtype=config.dtype, segment=1, **size)
    numbers: dict[str, Any] = {
        "device": device.device_kind,
        "devices": jax.device_count(),
        "jax": jax.__version__,
        "family": config.family,
        "scale": config.scale,
        "size": f"{request.height}x{request.width}",
        "dtype": config.dtype,
        "date": time.strftime("%Y-%m-%d"),
    }
    tell(", ".join(f"{name} {value}" for name, value in numbers.items()))
    for name, section in (("generation", generation), ("numerics", numerics), ("training", training)):
        if time.perf_counter() - began > 60 * config.minutes:
            numbers[name] = f"not begun: {config.minutes:g} minutes are over"
            tell(f"{name}: {numbers[name]}")
            continue
        numbers[name] = {}
        try:
            for key, value in section(request, began + 60 * config.minutes):
                numbers[name][key] = value
                tell(f"{name}: {key} {value:.4g}" if isinstance(value, float) else f"{name}: {key} {value}")
        except jax.errors.JaxRuntimeError as error:
            numbers[name]["failed"] = first_line(error)
            tell(f"{name}: failed: {first_line(error)}")
    return numbers


Section = Iterator[tuple[str, Any]]
"""The numbers of a section by name, as they are measured."""


def random_stream(request: Request) -> ProgressiveStream:
    """A stream with random weights and prompts that need no text encoder."""
    config = request.config
    shapes = in_dtype(abstract_params(config), DTYPES[request.dtype])
    model = Model(random_like({part: shapes[part] for part in (config.transformer_part, "vae")}), config, None)
    length, width = config.text.max_tokens, config.t5.d_model
    features = np.random.default_rng(0).normal(size=(1, 1, length, width)).astype(np.float32)
    whole = np.full(1, length, np.int32)
    negative = (features[:, 0], whole) if request.negative_prompts else ()
    return ProgressiveStream(model, request, PromptFeatures(features, whole[None], *negative))


def generation(request: Request, deadline: float) -> Section:
    """Sampling and decoding, as `pavdm` does them."""
    stream = random_stream(request)
    config, flops = request.config, shift_flops(request.config, request.height, request.width)

    def slide() -> Any:
        return stream.slide()[1].latents

    compiling, shift = _first_and_rest(slide, SHIFTS)
    yield "compile_seconds", compiling - shift
    yield "seconds_a_shift", shift
    peak = peak_flops(jax.local_devices()[0].device_kind)
    if peak is not None:
        yield "share_of_peak", flops / shift / peak / jax.device_count()
    # As the stream has its own, or decoding would be compiled once more.
    latents = jax.device_put(jnp.zeros((1, config.window.chunk_size, *stream._cell)), stream._state.latents.sharding)
    frames = 0

    def decode_two() -> None:  # of a causal VAE, the first chunk of all has a program of its own
        nonlocal frames
        for _ in range(2):
            frames = sum(made.shape[1] for made in stream._decode_finished(latents))

    compiling, of_two = _first_and_rest(decode_two, 2)
    decoding = of_two / 2
    yield "compile_seconds_of_decoding", compiling - of_two
    yield "decode_seconds_a_chunk", decoding
    yield "frames_a_chunk", frames
    yield "frames_per_second", frames / (shift + decoding)
    # Of a part, multiplied: the shifts of the whole video, and the chunks that come out of them.
    yield f"estimated_seconds_for_{MINUTE}_frames", stream.num_rounds * shift + MINUTE / frames * decoding
    memory = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    yield "peak_memory_gib", "not told by this device" if memory is None else memory / GIB
    if stream._conditions.backend != "xla" and time.perf_counter() < deadline:
        conditions = dataclasses.replace(stream._conditions, backend="xla")
        stream._conditions = conditions
        yield "seconds_a_shift_with_plain_attention", _first_and_rest(slide, 2)[1]


def numerics(request: Request, deadline: float) -> Section:
    """A forward pass on this device, against float32 on the host."""
    config, frames = request.config, request.config.window.chunk_size
    shapes = abstract_params(config)[config.transformer_part]
    params = random_like(in_dtype(shapes, DTYPES[request.dtype]))
    rng, cell = np.random.default_rng(1), (16, 16, config.vae.latent_channels)
    latents = rng.normal(size=(1, frames, *cell)).astype(np.float32)
    levels = np.linspace(0.1, 0.9, frames, dtype=np.float32)[None]
    features = rng.normal(size=(1, 1, config.text.max_tokens, config.t5.d_model)).astype(np.float32)

    def velocity(params: dict, dtype: Any, device: Any) -> np.ndarray:
        network = networks(config, dtype)

        @jax.jit
        def call(params: dict) -> jax.Array:
            caption = network.caption(params, jnp.asarray(features), jnp.full((1, 1), 8))
            fps, height, width = (jnp.full(1, value) for value in (request.fps, *request.told_size))
            window = (jnp.asarray(latents), jnp.asarray(levels))
            return network.predict(params, *window, caption, fps, height, width, None)[0]

        with jax.default_device(device):
            return np.asarray(call(params))

    here = velocity(params, DTYPES[request.dtype], jax.local_devices()[0])
    host = on_host().device_set.copy().pop()
    exact = velocity(jax.device_put(jax.tree.map(lambda x: np.asarray(x, np.float32), params), host), jnp.float32, host)
    yield "relative_error_of_a_forward", float(np.abs(here - exact).max() / np.abs(exact).max())


def training(request: Request, deadline: float) -> Section:
    """Steps of the progressive finetune, with batches that grow while they fit and each clip gets faster."""
    config, clips, kept = request.config, jax.device_count(), None
    model = dataclasses.replace(config, height=request.height, width=request.width)
    peak = peak_flops(jax.local_devices()[0].device_kind)
    while clips <= MOST_CLIPS * jax.device_count() and time.perf_counter() < deadline:
        try:
            seconds, flops = _training_step(model, request.dtype, clips)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            yield f"{clips}_clips", "do not fit the memory"
            break
        yield f"seconds_a_step_of_{clips}_clips", seconds
        faster = kept is None or clips / seconds > 1.05 * kept[0] / kept[1]
        kept = (clips, seconds, flops) if faster else kept
        if not faster:
            break
        clips *= 2
    if kept is not None:
        yield "steps_per_second", 1 / kept[1]
        yield "clips_per_second", kept[0] / kept[1]
        if peak is not None:
            yield "mfu", kept[2] / kept[1] / peak / jax.device_count()


def _training_step(model: AnyModelConfig, dtype: str, clips: int) -> tuple[float, int]:
    """Seconds and FLOPs of a step."""
    part = model.transformer_part
    optimizer = OptimizerConfig(1e-4, warmup_steps=0, decay=False)
    stage = Stage("real", ProgressiveDiffusion(), LatentData("none"), (part,), 1, clips, optimizer)
    config = TrainConfig(model, (stage,), compute_dtype=dtype, remat="full", mesh=f"fsdp={jax.device_count()}")
    mesh = make_mesh(train_mesh(config.mesh, clips, jax.device_count()))
    program, (state, _, batch, _) = abstract_program(config, stage, mesh)
    trained = place_params(random_like(state.params), mesh)
    with use_mesh(mesh):
        state, filled = program.init(trained), random_like(batch, seed=1)

        def step() -> None:
            nonlocal state
            state, loss = program.step(state, {}, filled, jax.random.key(0))
            jax.block_until_ready(loss)

        seconds = _first_and_rest(step, 3)[1]
    return seconds, train_flops(model.transformer, batch["latents"].shape)


def _first_and_rest(call: Callable[[], Any], times: int) -> tuple[float, float]:
    """Seconds of the first call, which compiles, and the median of the others."""
    seconds = []
    for _ in range(1 + times):
        started = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - started)
    return seconds[0], statistics.median(seconds[1:])
