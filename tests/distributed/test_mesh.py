"""Meshes as text, where parameters lie at full sizes, and (in a process with eight devices) equal results."""

import ast
import math
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import traverse_util
from support.abstract_meshes import abstract_mesh
from support.tiny_model import tiny_model

import pavdm_jax
from pavdm_jax.config import OPEN_SORA_1_2, STDIT3_3B, ModelConfig
from pavdm_jax.distributed.mesh import (
    FSDP,
    LOGICAL_AXES,
    MESH_AXES,
    MeshConfig,
    check_mesh,
    generation_mesh,
    make_mesh,
    parse_mesh,
)
from pavdm_jax.distributed.partitioning import tree_shardings
from pavdm_jax.errors import ConfigError
from pavdm_jax.models.model import abstract_params

TESTS, PACKAGE = Path(__file__).parents[1], Path(pavdm_jax.__file__).parent


@pytest.mark.parametrize("which", ["training", "not training"])
def test_eight_devices_compute_what_one_does(which):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        which,
        str(TESTS / "support" / "eight_devices.py"),
    ]
    done = subprocess.run(command, env=environment, cwd=TESTS.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


# --- as it is written -------------------------------------------------------------------------------------------------


class FakeDevice:
    """A device of a machine that is not there."""

    core_on_chip = 0

    def __init__(self, number, kind, platform, host, coords=None):
        self.id, self.device_kind, self.platform, self.coords = number, kind, platform, coords
        self.process_index = self.slice_index = host

    def __repr__(self):
        return f"{self.device_kind} {self.id}"


def test_gpus_of_several_hosts_are_one_mesh():
    """Of which JAX says that each host is a slice of its own."""
    devices = [FakeDevice(n, "NVIDIA H100 80GB HBM3", "gpu", n // 8) for n in range(32)]
    mesh = make_mesh(MeshConfig(data=4, fsdp=8), devices)
    assert dict(mesh.shape) == {"data": 4, "fsdp": 8, "fsdp_rest": 1, "sequence": 1}
    assert [{device.process_index for device in row.flat} for row in mesh.devices] == [{0}, {1}, {2}, {3}]


@pytest.mark.parametrize(
    ("kind", "torus", "config"),
    [
        ("TPU v4", (4, 4, 8), MeshConfig(data=8, fsdp=16)),
        ("TPU v4", (4, 4, 8), MeshConfig(data=4, fsdp=16, sequence=2)),
        ("TPU v4", (4, 4, 8), MeshConfig(data=2, fsdp=16, sequence=4)),
        ("TPU v5", (4, 4, 4), MeshConfig(data=2, sequence=32)),
        ("TPU v6 lite", (4, 4, 1), MeshConfig(data=2, sequence=8)),
    ],
)
def test_axes_may_share_an_axis_of_the_torus(kind, torus, config):
    devices = []
    for number, (z, y, x) in enumerate(np.ndindex(*reversed(torus))):
        devices.append(FakeDevice(number, kind, "tpu", 0, (x, y, z)))
    mesh = make_mesh(config, devices)
    assert mesh.size == len({device.id for device in mesh.devices.flat}) == math.prod(torus)


def test_meshes_are_read():
    assert parse_mesh("data=2,sequence=4") == MeshConfig(data=2, sequence=4)
    assert parse_mesh(" fsdp = 16 ") == MeshConfig(fsdp=16)
    assert str(MeshConfig(data=2, sequence=4)) == "data=2,sequence=4"
    assert parse_mesh(str(MeshConfig())) == MeshConfig()


@pytest.mark.parametrize(
    "text", ["", "data", "data=", "data=two", "data=-1", "model=2", "data=2,data=4", "data=2;fsdp=2"]
)
def test_what_is_no_mesh_is_named(text):
    with pytest.raises(ConfigError, match="write for instance data=2,sequence=4") as caught:
        parse_mesh(text)
    assert f"mesh '{text}'" in str(caught.value)


def test_an_axis_has_at_least_one_device():
    with pytest.raises(ConfigError, match="mesh axis data must be at least 1, not 0"):
        parse_mesh("data=0")


def test_shapes_that_fit_are_named():
    check_mesh(MeshConfig(data=4, fsdp=16), 64)
    with pytest.raises(ConfigError) as caught:
        check_mesh(MeshConfig(fsdp=2, sequence=3), 4)
    assert str(caught.value) == (
        "mesh fsdp=2,sequence=3 takes 6 devices and there are 4; "
        "these fit: fsdp=1,sequence=4 or fsdp=2,sequence=2 or fsdp=4,sequence=1"
    )


@pytest.mark.parametrize(
    ("devices", "videos", "mesh"),
    [
        (1, 3, MeshConfig()),
        (2, 1, MeshConfig(data=2)),
        (8, 1, MeshConfig(data=2, sequence=4)),
        (8, 2, MeshConfig(data=4, sequence=2)),
        (8, 3, MeshConfig(data=2, sequence=4)),
        (8, 4, MeshConfig(data=8)),
        (6, 3, MeshConfig(data=6)),
    ],
)
def test_guidance_halves_and_videos_come_before_tokens(devices, videos, mesh, monkeypatch):
    monkeypatch.setattr(jax, "local_device_count", lambda: devices)
    assert generation_mesh("auto", videos) == mesh
    assert generation_mesh("single", videos) == MeshConfig()
    halves = generation_mesh("auto", 2 * videos, guided=False)  # no halves, but as many videos
    assert halves == mesh


# --- parameters -------------------------------------------------------------------------------------------------------

BIG = 2**20  # values; the parameters of a model with fewer than this are a few MB


def shards(spec: tuple, mesh) -> int:
    axes = [axis for entry in spec if entry for axis in ((entry,) if isinstance(entry, str) else entry)]
    return math.prod(mesh.shape[axis] for axis in axes)


@pytest.mark.parametrize("stdit3", [OPEN_SORA_1_2.stdit3, STDIT3_3B], ids=["XL", "3B"])
def test_every_big_parameter_is_spread_over_all_of_fsdp(stdit3):
    """With T5-XXL and the VAE beside them; 3B/2 has axes of 1872, 5616 and 7488."""
    tree = abstract_params(ModelConfig(stdit3=stdit3))
    params = traverse_util.flatten_dict(tree, sep="/")
    for fsdp in (8, 16, 64, 256):
        mesh = abstract_mesh(MeshConfig(data=2, fsdp=fsdp))
        shardings = traverse_util.flatten_dict(tree_shardings(tree, mesh), sep="/")
        total = 0
        for name, leaf in params.items():
            shardings[name].shard_shape(leaf.shape)  # raises unless every split divides
            parts = shards(shardings[name].spec, mesh)
            total += leaf.size / parts
            if leaf.size >= BIG and not name.startswith("vae/"):
                assert parts == fsdp, (name, leaf.shape, shardings[name].spec)
            if name.startswith(("stdit3/blocks", "stdit3/caption_blocks", "t5/layers")):
                assert not shardings[name].spec or shardings[name].spec[0] is None, name  # the axis of the scan
        assert total < 1.05 * sum(leaf.size for leaf in params.values()) / fsdp


def test_without_fsdp_parameters_are_whole():
    mesh = abstract_mesh(MeshConfig(data=2, sequence=4))
    assert all(
        shards(leaf.spec, mesh) == 1
        for leaf in jax.tree.leaves(tree_shardings(abstract_params(tiny_model().config), mesh))
    )


# --- walls ------------------------------------------------------------------------------------------------------------


def test_only_the_mesh_and_its_partitioning_name_mesh_axes():
    """Each other file may use neither their names nor the classes that take them."""
    distinct = set(MESH_AXES) - {"data"}  # which is a word of its own, too
    for path in PACKAGE.rglob("*.py"):
        if path.name in ("mesh.py", "partitioning.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant):
                assert node.value not in distinct, (path, node.lineno)
            name = getattr(node, "attr", getattr(node, "id", None))
            assert name not in {"PartitionSpec", "set_mesh", "make_array_from_process_local_data"}, (path, node.lineno)
    assert set(FSDP) < set(MESH_AXES)
    assert {axis for _, axes in LOGICAL_AXES for axis in ([axes] if isinstance(axes, str) else axes)} <= set(MESH_AXES)
