"""This implementation beside the reference's PyTorch code, on this CPU: `pavdm benchmark --against CHECKOUT`.

CHECKOUT is your copy of Open-Sora v1.2 or of desaixie/pa_vdm, whose own modules are imported (see `reference`). Both
sides compute the same, with the same random weights in float32, alternately in one process; the largest difference of
their results is told, too. Three things are timed: a guided call of the embedded demo's network; one of two pairs of
blocks as wide as the published transformer, on latents of 8x14; and the VAE of published size, which decodes 17 frames
of 64x112. Captions fill all their tokens. What depends on the prompt alone (the caption's keys and values) is computed
once a video here, and in every call there.

    git clone https://github.com/desaixie/pa_vdm
    pip install torch timm diffusers transformers mmengine rotary_embedding_torch
    pavdm benchmark --against pa_vdm
"""

import dataclasses
import logging
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pavdm_jax.ahead_of_time import reference
from pavdm_jax.config import OPEN_SORA_1_2, ModelConfig, demo
from pavdm_jax.conversion.open_sora import stdit3_rules, vae_rules
from pavdm_jax.errors import ConfigError, first_line
from pavdm_jax.generation.programs import Conditions, guidance_caption
from pavdm_jax.models.attention import choose_backend
from pavdm_jax.models.model import abstract_params
from pavdm_jax.models.networks import networks
from pavdm_jax.outputs import check_output

PAUSE = 0.05
"""Seconds between two timings: threads of the one side wait a moment before they sleep, at the other's cost."""

SAME = 1e-3
"""The largest difference, over the largest value, of results that count as the same."""


@dataclass(frozen=True)
class AgainstConfig:
    """With which code to compare, and how often to time."""

    against: str
    """the folder of a checkout of Open-Sora v1.2 or desaixie/pa_vdm"""
    runs: int = 7
    """timings of each row, at least 5"""
    no_compile: bool = False
    """leave out torch.compile, which needs a C++ compiler and some minutes"""
    output: str | None = None
    """a JSON file for the numbers"""

    def __post_init__(self) -> None:
        if self.runs < 5:
            raise ConfigError(f"--runs must be at least 5, not {self.runs}")
        if self.output is not None:
            check_output(self.output, (".json",))


class Case(NamedTuple):
    """One computation: by whom it is done, and how.

    Attributes:
      ours: returns the result as a JAX array `[b, t, h, w, c]`.
      theirs: by its name, what returns it as a tensor `[b, c, t, h, w]`.
    """

    title: str
    ours: Callable[[], jax.Array]
    theirs: dict[str, Callable[[], Any]]


def measure_against(config: AgainstConfig, tell: Callable[[str], None] = print) -> list[dict[str, Any]]:
    """Time all rows, and tell each as it comes.

    Returns:
      A dict for each row: case, implementation, minimum and median in seconds, `over_ours`, the minimum as a multiple
      of ours (above 1: ours is faster), and `difference`, the largest one of the results over our largest value; or
      `failed`, a text.

    Raises:
      ConfigError: the checkout cannot be used, or computes something else.
    """
    reference.open_checkout(config.against)
    import torch

    logging.getLogger("torch._dynamo").setLevel(logging.ERROR)  # it tells where the reference's code cannot be compiled
    tell(f"jax {jax.__version__} and torch {torch.__version__}, {torch.get_num_threads()} threads, float32, cpu")
    tell(f"{'':28} {'minimum':>9} {'median':>9} {'over ours':>10} {'difference':>11}")
    rows = []
    with torch.inference_mode():
        for case in cases():
            tell(case.title)
            for row in time_case(case, config):
                rows.append(row)
                tell(f"  {row['implementation']:26} {row.get('failed') or _numbers(row)}")
    return rows


def _numbers(row: dict[str, Any]) -> str:
    times = f"{row['minimum']:7.3f} s {row['median']:7.3f} s {row['over_ours']:10.2f}"
    return f"{times} {row['difference']:11.1e}"


def time_case(case: Case, config: AgainstConfig) -> Iterator[dict[str, Any]]:
    """The rows of a case, timed alternately."""
    calls: dict[str, Callable[[], Any]] = {"ours": lambda: jax.block_until_ready(case.ours())} | case.theirs
    expected, difference, failed = np.moveaxis(np.asarray(case.ours()), -1, 1), {"ours": 0.0}, {}
    for name, call in case.theirs.items():
        if config.no_compile and name == "torch.compile":
            del calls[name]
            continue
        try:  # twice: the second call of a compiled program may compile again
            call()
            difference[name] = float(np.abs(call().numpy() - expected).max() / np.abs(expected).max())
        except Exception as error:  # of torch.compile any
            failed[name] = f"failed: {first_line(error)}"
            del calls[name]
            continue
        if not difference[name] < SAME:
            raise ConfigError(f"{config.against}: {case.title} gives another result there, by {difference[name]:.1e}")
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(config.runs):
        for name, call in calls.items():
            time.sleep(PAUSE)
            started = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started)
    for name, all_of_it in seconds.items():
        fastest = min(all_of_it)
        times = {"minimum": fastest, "median": statistics.median(all_of_it)}
        compared = {"over_ours": fastest / min(seconds["ours"]), "difference": difference[name]}
        yield {"case": case.title, "implementation": name, **times, **compared}
    for name, text in failed.items():
        yield {"case": case.title, "implementation": name, "failed": text}


def cases() -> Iterator[Case]:
    """What is compared, one at a time in memory."""
    yield transformer_case("demo network, guided call", demo())
    two_pairs = dataclasses.replace(OPEN_SORA_1_2.stdit3, depth=2)
    published = dataclasses.replace(OPEN_SORA_1_2, stdit3=two_pairs, height=64, width=112)
    yield transformer_case("two pairs of blocks, guided", published)
    yield decoder_case("VAE, 17 frames of 64x112", published)


def transformer_case(title: str, config: ModelConfig) -> Case:
    """A guided call of a transformer, on a window."""
    import torch

    size, rng = config.stdit3, np.random.default_rng(0)
    down, frames = config.vae.spatial.downsample, config.window.window_size
    latents = rng.normal(size=(1, frames, config.height // down, config.width // down, size.latent_channels))
    features = rng.normal(size=(1, 1, size.max_caption_tokens, size.caption_channels)).astype(np.float32)
    levels = np.linspace(0.1, 0.9, frames) if reference.has_frame_levels() else np.full(frames, 0.5)
    scalars = {"fps": config.fps, "height": float(config.height), "width": float(config.width)}
    eager, fused = (reference.stdit3(size, fused_attention) for fused_attention in (False, True))
    fused.load_state_dict(eager.state_dict())

    def theirs(model: Any) -> Callable[[], Any]:
        null = eager.y_embedder.y_embedding[None, None]
        tokens = torch.ones(2, size.max_caption_tokens, dtype=torch.int64)
        named = {name: torch.full((2,), value) for name, value in scalars.items()}
        timesteps = torch.tensor(levels[None] * 1000 if reference.has_frame_levels() else [500.0]).float()
        call = reference.guided(model, config.guidance_scale)
        inputs = torch.tensor(latents).float().permute(0, 4, 1, 2, 3), timesteps
        captions = torch.cat([torch.tensor(features), null])
        return lambda: call(*inputs, captions, tokens, **named)

    params = reference.parameters(eager, stdit3_rules(size), abstract_params(config)["stdit3"])
    caption = guidance_caption(params, features, np.full((1, 1), size.max_caption_tokens, np.int32), config=config)
    backend = choose_backend(jax.local_devices()[0], jnp.float32, size.head_width)
    given = [np.float32(value) for value in (*scalars.values(), config.guidance_scale)]
    conditions = Conditions(jax.device_put(params), caption, *given, config=config, dtype=jnp.float32, backend=backend)
    window = jnp.asarray(latents, jnp.float32), jnp.asarray(levels[None], jnp.float32)
    ours = jax.jit(lambda conditions, *window: conditions.velocity()(*window, frames, jnp.zeros((1, frames), int)))
    compiled = {"torch.compile": theirs(torch.compile(eager))}
    return Case(
        title,
        lambda: ours(conditions, *window),
        {"PyTorch, eager": theirs(eager), "PyTorch, fused attention": theirs(fused)} | compiled,
    )


def decoder_case(title: str, config: ModelConfig) -> Case:
    """Decoding of a micro clip."""
    import torch

    model, size = reference.vae(config), config.vae
    cell = config.height // size.spatial.downsample, config.width // size.spatial.downsample
    latents = np.random.default_rng(0).normal(size=(1, size.micro_latents, *cell, size.spatial.latent_channels))
    there = torch.tensor(latents).float().permute(0, 4, 1, 2, 3)
    params = jax.device_put(reference.parameters(model, vae_rules(size), abstract_params(config)["vae"]))
    here, decode = jnp.asarray(latents, jnp.float32), jax.jit(networks(config).decode)
    compiled = torch.compile(model.decode)
    return Case(
        title,
        lambda: decode(params, here),
        {
            "PyTorch": lambda: model.decode(there, num_frames=size.micro_frames),
            "torch.compile": lambda: compiled(there, num_frames=size.micro_frames),
        },
    )
