"""The reference's progressive trajectories through the public stream, with its noise, latents and prompt."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import golden_data
from support.golden_data import channels_last
from support.golden_network import network_config, network_params

from pavdm_jax.config import ModelConfig, T5Config, TextConfig, WindowConfig
from pavdm_jax.generation import decoding, programs
from pavdm_jax.generation.pipeline import open_stream
from pavdm_jax.generation.progressive import ProgressiveStream
from pavdm_jax.generation.prompts import PromptFeatures
from pavdm_jax.generation.request import make_request
from pavdm_jax.models.model import Model

pytestmark = pytest.mark.usefixtures("fully_optimised")

NUMBER_OF_NOISES = 64


def golden_stream(name, monkeypatch):
    """The stream of a trajectory, and the reference's latents.

    Encoding gives the reference's latents, decoding gives latents back.
    """
    settings, arrays = golden_data.load(f"trajectory_{name}")
    k, given = settings["chunk"], int(settings["keep_clean_chunk"])
    noisy = settings["noisy_latents"]
    stdit3, seen = (
        network_config(settings),
        35,
    )  # the reference counts the frames of the largest window in all its trajectories
    window = WindowConfig(chunk_size=k, noisy_chunks=noisy // k, context_chunks=given, steps=settings["sampling_steps"])
    config = ModelConfig(
        stdit3=stdit3,
        t5=T5Config(d_model=settings["caption_channels"]),
        text=TextConfig(max_tokens=settings["model_max_length"]),
        window=window,
        guidance_scale=settings["cfg_scale"],
        noise_base_size=512 * (window.window_size / seen) ** 0.5,
    )
    inputs, vae = arrays["inputs"], config.vae
    expected = channels_last(arrays["outputs"]["latents"])
    # The last chunk of a full window is pure noise: what the reference is given there does not matter.
    known = given if settings["variable_length"] else given + window.noisy_chunks - 1
    latents = channels_last(inputs["z"])[:, : known * k]
    fill = -latents.shape[1] % vae.micro_latents  # a start clip has whole micro clips
    latents = np.pad(latents, ((0, 0), (fill, 0), (0, 0), (0, 0), (0, 0)))
    start_frames = latents.shape[1] // vae.micro_latents * vae.micro_frames
    made = expected.shape[1] - known * k
    frames = start_frames + -(-made // vae.micro_latents) * vae.micro_frames
    request = make_request(
        config,
        "a prompt",
        frames=frames,
        height=latents.shape[2] * 8,
        width=latents.shape[3] * 8,
        start=np.zeros((start_frames, latents.shape[2] * 8, latents.shape[3] * 8, 3), np.uint8),
        fixed_length=not settings["variable_length"],
        mesh="single",
    )
    request = dataclasses.replace(request, told_size=(settings["height"], settings["width"]))

    # One draw for the first window, one for each chunk after it, in the order of chunks.
    drawn = np.concatenate([channels_last(noise) for _, noise in sorted(arrays["noises"].items())], axis=1)
    drawn = np.moveaxis(drawn.reshape(1, -1, k, *drawn.shape[2:]), 1, 0)
    by_chunk = np.zeros((NUMBER_OF_NOISES, *drawn.shape[1:]), np.float32)
    by_chunk[given : given + len(drawn)] = drawn
    monkeypatch.setattr(programs, "gaussian_noise", lambda keys, shape: lambda number: jnp.asarray(by_chunk)[number])
    monkeypatch.setattr(ProgressiveStream, "_encode", lambda self, frames: jnp.asarray(latents))
    shown = []
    frames_of = np.zeros((1, vae.micro_frames, request.height, request.width, 3), np.uint8)
    monkeypatch.setattr(decoding, "decode_frames", lambda params, clip, config, dtype: shown.append(clip) or frames_of)
    lengths = np.asarray(inputs["text_mask"], np.int32).sum(1, keepdims=True)
    prompts = PromptFeatures(np.asarray(inputs["y"], np.float32), lengths)
    model = Model({"stdit3": network_params(stdit3, arrays["weights"]), "vae": {}}, config, None)
    stream = open_stream(model, request, prompts)
    return stream, shown, latents[:, fill : fill + given * k], fill, expected


@pytest.mark.parametrize(
    "name", ["pa_variable_length", "pa_clean_chunk_fixed_length", "pa_no_clean_chunk", "pa_no_chunk"]
)
def test_the_public_stream_follows_the_reference(name, monkeypatch):
    jax.clear_caches()  # the noise is a part of the compiled programs
    stream, shown, context, fill, expected = golden_stream(name, monkeypatch)
    for _ in stream:
        pass
    made = np.concatenate([*shown, stream.save()["finished"]], axis=1)[:, fill:]
    made = np.concatenate([context, made], axis=1)[:, : expected.shape[1]]
    assert golden_data.relative_error(made, expected) < golden_data.TRAJECTORY_TOLERANCE
    jax.clear_caches()
