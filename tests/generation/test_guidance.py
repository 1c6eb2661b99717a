"""Guidance of whole videos: negative prompts, no guidance, guidance above a noise level, and reuse below one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.tiny_model import CHUNK, PROMPT, TINY, tiny_model

from pavdm_jax import generate, generate_stream
from pavdm_jax.errors import ConfigError
from pavdm_jax.generation.programs import guidance_caption
from pavdm_jax.models import networks
from pavdm_jax.wan_config import tiny_wan

OTHER = "a large green triangle moves right"


def video(prompt=PROMPT, frames=3 * CHUNK, model=None, **options):
    return generate(model or tiny_model(), prompt, frames, **options)


def differ(one, other):
    return np.abs(one.astype(int) - other).max() > 1


def test_captions_are_computed_in_float32_and_kept_as_the_network_uses_them():
    stream = generate_stream(tiny_model(), PROMPT, CHUNK, dtype="bfloat16")
    kept, config = stream._conditions.caption, stream.request.config
    exact = guidance_caption(stream.model.transformer, *stream._prompts, config=config)
    for ours, whole in ((kept.keys, exact.keys), (kept.values, exact.values)):
        assert (ours.dtype, whole.dtype) == (jnp.bfloat16, jnp.float32)
        np.testing.assert_array_equal(ours, whole.astype(jnp.bfloat16))


def test_a_negative_prompt_takes_the_place_of_the_null_caption():
    plain, away = video(), video(negative_prompt=OTHER)
    assert differ(plain, away)
    np.testing.assert_array_equal(away, video(negative_prompt=[OTHER]))
    # Guidance between equal prompts is no guidance.
    same = video(negative_prompt=PROMPT, guidance_scale=5.0)
    assert not differ(same, video(guidance_scale=1.0))
    with pytest.raises(ConfigError, match="guidance_scale is 1, which is none"):
        video(negative_prompt=PROMPT, guidance_scale=1.0)


@pytest.mark.parametrize(
    ("options", "passes"),
    [
        ({"guidance_scale": 1.0}, [(1, 20)]),
        ({"guidance_scale": 3.0}, [(2, 20)]),
        # Of the three noisy chunks two are above the level, at least in a shift's first step.
        ({"guidance_scale": 3.0, "guidance_above": 0.1}, [(1, 20), (1, 10)]),
    ],
)
def test_a_step_predicts_twice_only_what_is_guided(options, passes, monkeypatch):
    stream, seen, apply = generate_stream(tiny_model(), PROMPT, CHUNK, **options), [], networks._apply

    def counted(network, params, latents, *inputs, **named):
        seen.append(latents.shape[:2])
        return apply(network, params, latents, *inputs, **named)

    monkeypatch.setattr(networks, "_apply", counted)
    latents = jnp.zeros((1, 20, *stream._cell))
    velocity = jax.eval_shape(stream._conditions.velocity(), latents, latents[..., 0, 0, 0], 20, jnp.zeros(4, int))
    assert (seen, velocity.shape) == (passes, latents.shape)


def test_guidance_may_be_left_out_below_a_level():
    timeline = [(0, PROMPT), (1, OTHER)]
    options = {"frames": 5 * CHUNK, "guidance_scale": 3.0}
    partly, seldom = (video(timeline, **options, guidance_above=level) for level in (0.1, 0.999))
    assert differ(partly, video(timeline, **options))
    assert differ(partly, seldom)
    np.testing.assert_array_equal(partly, video(timeline, **options, guidance_above=0.1, segment=3))


@pytest.mark.parametrize("config", [TINY, tiny_wan()], ids=lambda config: config.name)
def test_nearly_finished_frames_may_be_predicted_once_a_shift(config):
    timeline, frames = [(0, PROMPT), (1, OTHER)], 5 * CHUNK
    options = {"frames": frames, "guidance_scale": 3.0, "steps": 9, "model": tiny_model(config)}
    plain, context, more = (video(timeline, **options, reuse_below=level) for level in (None, 0.0, 0.9))
    near, far = (np.abs(made.astype(int) - plain).mean() for made in (context, more))
    assert 0 < near < far < 30
    np.testing.assert_array_equal(more, video(timeline, **options, reuse_below=0.9, segment=3))
