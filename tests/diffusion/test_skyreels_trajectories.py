"""Whole samplings of SkyReels-V2 by its own schedules and both solvers, step by step through a small network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import golden_data
from support.wan_network import FPS, trajectory_network

from pavdm_jax.diffusion.block_schedule import num_rows, plan_blocks, waiting_window
from pavdm_jax.diffusion.guidance import guided
from pavdm_jax.diffusion.sampler import sample_segment
from pavdm_jax.diffusion.solvers import EULER, UniPC
from pavdm_jax.diffusion.wan_levels import wan_levels
from pavdm_jax.models.caption import concatenate
from pavdm_jax.models.wan import WanTransformer, wan_timesteps
from pavdm_jax.wan_config import BlockScheduleConfig

TOLERANCE = 1e-4
"""Some fifty network calls with guidance 6; the reference's own two networks differ by 1e-6."""

NAMES = ("sync", "async", "rolling_context", "rolling_no_context", "continuation", "continuation_async")


def frames_first(array):
    """[C, T, H, W] → [1, t, h, w, c]."""
    return np.moveaxis(array, 0, -1)[None]


def guided_velocity(settings, inputs):
    config, params = trajectory_network()
    network = WanTransformer(config)
    captions = [
        network.apply({"params": params}, inputs[name][:, None], jnp.full((1, 1), length), method="encode_caption")
        for name, length in (
            ("context", settings["context_length"]),
            ("negative_context", settings["negative_length"]),
        )
    ]
    caption = concatenate(captions)

    def velocity(latents, levels, num_valid, prompt_index):
        b = latents.shape[0]
        fps, valid = jnp.full((b,), FPS[settings["fps_code"]]), jnp.full((b,), num_valid)
        return network.apply({"params": params}, latents, wan_timesteps(levels), caption, fps, valid)

    return guided(velocity, settings["guidance_scale"])


@pytest.mark.parametrize("solver", ["euler", "unipc"])
@pytest.mark.parametrize("name", NAMES)
def test_trajectory(name, solver):
    settings, arrays = golden_data.load(f"skyreels/trajectory_{name}")
    frames, given = settings["num_latents"], settings["num_pre_ready"]
    levels = wan_levels(settings["steps"], settings["shift"])
    config = BlockScheduleConfig(
        window_size=settings["base_latents"],
        steps=settings["steps"],
        lag=settings["ar_step"],
        block_size=settings["causal_block_size"],
        given_noise=settings["addnoise_condition"] / 1000,
    )
    assert num_rows(config, frames, given) == settings["rows"]
    plan = plan_blocks(config, levels, frames, given)
    chunk = settings["causal_block_size"] if settings["ar_step"] else frames
    method = UniPC.of(levels, overwritten_start=True) if solver == "unipc" else EULER
    start = jnp.asarray(frames_first(arrays["inputs"]["latents"]))

    def noise(number):
        return jax.lax.dynamic_slice_in_dim(start, number * chunk, chunk, axis=1)

    held_noise = None
    if given:  # the window is the whole video in these; what lies behind the given frames is not looked at
        drawn = np.stack([frames_first(noise) for noise in arrays["noises"]["addnoise"]])
        drawn = jnp.pad(drawn, [(0, 0), (0, 0), (0, frames - given), *[(0, 0)] * 3], constant_values=jnp.nan)
        held_noise = functools.partial(jnp.take, drawn, axis=0)

    @jax.jit
    def sample(plan):
        first = jax.tree.map(lambda array: array[0], plan)
        state = waiting_window(noise, jnp.zeros(1), start[:, :given], first, method)
        return sample_segment(guided_velocity(settings, arrays["inputs"]), noise, state, plan, method, held_noise)[1]

    finished = sample(plan)
    made = [finished.latents[i] for i in np.flatnonzero(finished.number >= 0)]
    video = np.concatenate([start[:, : given if chunk < frames else 0], *made], axis=1)
    expected = frames_first(arrays["outputs"][f"latents_{solver}"])
    assert golden_data.relative_error(video, expected) < TOLERANCE
