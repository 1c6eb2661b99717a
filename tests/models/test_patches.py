"""Patches of another size: what is the same everywhere in a frame becomes the same tokens and velocities as before."""

import dataclasses

import einops
import jax
import numpy as np
import pytest

from pavdm_jax.config import tiny
from pavdm_jax.models.embeddings import patchify, unpatchify
from pavdm_jax.models.patches import differs_in_patches_alone, resize_patches
from pavdm_jax.models.stdit3 import STDiT3


@pytest.mark.parametrize(("old", "new"), [((2, 2), (1, 1)), ((1, 1), (2, 2)), ((2, 2), (1, 2)), ((2, 1), (2, 2))])
def test_constant_frames_become_the_same_tokens_and_constant_tokens_the_same_mean(old, new):
    config = dataclasses.replace(tiny().stdit3, patch_size=old)
    params = STDiT3(config).init(jax.random.key(0), method="init_all")["params"]
    keys = iter(jax.random.split(jax.random.key(1), len(jax.tree.leaves(params))))
    params = jax.tree.map(lambda x: x + jax.random.normal(next(keys), x.shape, x.dtype), params)
    resized = resize_patches(params, old, new)
    wanted = STDiT3(dataclasses.replace(config, patch_size=new)).init(jax.random.key(0), method="init_all")["params"]
    assert jax.tree.map(np.shape, resized) == jax.tree.map(np.shape, wanted)

    frame = einops.repeat(np.arange(1.0, 5), "c -> 1 1 4 4 c")
    first = [patchify(frame, size) @ one["patch_embed"]["kernel"] for one, size in ((params, old), (resized, new))]
    np.testing.assert_allclose(first[0][0, 0, 0], first[1][0, 0, 0], rtol=1e-5, atol=1e-5)

    token = np.linspace(-1, 1, config.hidden_size)
    last = []
    for one, (rows, columns) in ((params, old), (resized, new)):
        tokens = einops.repeat(
            token @ one["final"]["kernel"] + one["final"]["bias"], "o -> 1 1 s o", s=16 // rows // columns
        )
        last.append(unpatchify(tokens, 4, 4, (rows, columns)).mean((0, 1, 2, 3)))
    np.testing.assert_allclose(last[0], last[1], rtol=1e-5, atol=1e-5)
    same = [name for name in params if name not in ("patch_embed", "final")]
    assert same and all(resized[name] is params[name] for name in same)
    assert resized["patch_embed"]["bias"] is params["patch_embed"]["bias"]


def test_only_patches_and_the_unit_of_places_may_differ():
    config = tiny().stdit3
    assert differs_in_patches_alone(config, dataclasses.replace(config, patch_size=(1, 1), base_size=32))
    assert not differs_in_patches_alone(config, dataclasses.replace(config, depth=3))
