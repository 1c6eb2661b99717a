"""SkyReels-V2's own samplings by both of its schedules and both solvers, through the public stream."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import golden_data
from support.wan_network import FPS, trajectory_network

from pavdm_jax.config import T5Config
from pavdm_jax.generation import decoding, programs
from pavdm_jax.generation.pipeline import open_stream
from pavdm_jax.generation.progressive import ProgressiveStream
from pavdm_jax.generation.prompts import PromptFeatures
from pavdm_jax.generation.request import make_request
from pavdm_jax.geometry import decoded_frames
from pavdm_jax.models.model import Model
from pavdm_jax.wan_config import WanModelConfig, WanTextConfig

TOLERANCE = 1e-4
"""Some fifty network calls with guidance 6; the reference's own two networks differ by 1e-6."""

SCHEDULES = {
    "sync": {"schedule": "synchronous"},
    "async": {"schedule": "asynchronous", "chunk_size": 3, "noisy_chunks": 3, "context_chunks": 0, "lag": 5},
    # The lag of these two is that of the window, steps / noisy chunks.
    "rolling_context": {"schedule": "asynchronous", "chunk_size": 2, "noisy_chunks": 3, "context_chunks": 1},
    "rolling_no_context": {"schedule": "asynchronous", "chunk_size": 2, "noisy_chunks": 3, "context_chunks": 0},
    "continuation": {"schedule": "synchronous"},
    "continuation_async": {"schedule": "asynchronous", "chunk_size": 3, "noisy_chunks": 2, "lag": 4},
}
"""The options that make each of the stored samplings."""


def frames_first(array):
    """[C, T, H, W] → [1, t, h, w, c]."""
    return np.moveaxis(array, 0, -1)[None]


def golden_stream(name, solver, monkeypatch):
    """The stream of a sampling, the latents that it decodes, those that are given, and what the reference makes.

    Encoding gives the reference's latents, decoding gives latents back.
    """
    settings, arrays = golden_data.load(f"skyreels/trajectory_{name}")
    inputs, given, frames = arrays["inputs"], settings["num_pre_ready"], settings["num_latents"]
    wan, params = trajectory_network()
    config = WanModelConfig(
        wan=wan,
        t5=T5Config(d_model=wan.caption_channels),
        text=WanTextConfig(max_tokens=wan.max_caption_tokens),
        noise_shift=settings["shift"],
        guidance_scale=settings["guidance_scale"],
        solver=solver,
    )
    start = frames_first(inputs["latents"])
    *_, rows, columns, _ = start.shape
    size = (8 * rows, 8 * columns)
    clip = np.zeros((decoded_frames(given, config.vae), *size, 3), np.uint8)
    request = make_request(
        config,
        "a prompt",
        frames=decoded_frames(frames, config.vae),
        height=size[0],
        width=size[1],
        fps=FPS[settings["fps_code"]],
        start=clip if given else None,
        steps=settings["steps"],
        context_noise=settings["addnoise_condition"] / 1000,
        mesh="single",
        **SCHEDULES[name],
    )

    def noise(keys, shape):
        return lambda number: jax.lax.dynamic_slice_in_dim(jnp.asarray(start), number * shape[0], shape[0], axis=1)

    def noise_of_held(keys, shape):
        if not given:
            return lambda number: jnp.full((1, *shape), jnp.nan)
        drawn = np.stack([frames_first(noise) for noise in arrays["noises"]["addnoise"]])
        drawn = np.pad(drawn, [(0, 0), (0, 0), (0, shape[0] - given), *[(0, 0)] * 3], constant_values=np.nan)
        return lambda number: jnp.asarray(drawn)[number]  # what lies behind the given frames is not looked at

    shown = []

    def decode(params, latents, past, config, dtype):
        made = 4 * latents.shape[1] - 3 * (past is None)
        shown.append(np.asarray(latents))
        return jnp.zeros((1, made, *size, 3), jnp.uint8), True

    monkeypatch.setattr(programs, "gaussian_noise", noise)
    monkeypatch.setattr(programs, "noise_of_held", noise_of_held)
    monkeypatch.setattr(ProgressiveStream, "_encode", lambda self, frames: jnp.asarray(start[:, :given]))
    monkeypatch.setattr(decoding, "decode_next_frames", decode)
    features = PromptFeatures(
        inputs["context"][:, None],
        np.full((1, 1), settings["context_length"], np.int32),
        inputs["negative_context"],
        np.full((1,), settings["negative_length"], np.int32),
    )
    stream = open_stream(Model({"wan": params, "vae": {}}, config, None), request, features)
    return stream, shown, arrays["outputs"]


@pytest.mark.parametrize("solver", ["euler", "unipc"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_public_stream_follows_the_reference(name, solver, monkeypatch):
    jax.clear_caches()  # the noise is a part of the compiled programs
    stream, shown, outputs = golden_stream(name, solver, monkeypatch)
    frames = sum(made.shape[1] for made in stream)
    expected = frames_first(outputs[f"latents_{solver}"])
    assert frames == stream.request.frames == decoded_frames(expected.shape[1], stream.request.config.vae)
    assert golden_data.relative_error(np.concatenate(shown, axis=1), expected) < TOLERANCE
    jax.clear_caches()
