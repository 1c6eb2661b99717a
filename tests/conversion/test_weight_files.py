"""Weight files that are not what they should be: one clear line, exit code 2, nothing written, nothing executed."""

import json
import os
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file
from support.published_layouts import STDIT3, VAE, stdit3_folder, t5_folder, vae_folder

from pavdm_jax.conversion.open_sora_sizes import num_groups
from pavdm_jax.conversion.sources import open_weights


def safetensors_file(path, header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


# --- folders
# ------------------------------------------------------------------------------------------------------------


def test_a_folder_without_weights(tmp_path, refused):
    assert "there are no weights in" in refused("--stdit", tmp_path)
    assert "there is no file or folder nowhere" in refused("--stdit", "nowhere")
    (tmp_path / "notes.txt").write_text("hello")
    assert "notes.txt is no file of weights; known are .safetensors" in refused("--vae", tmp_path / "notes.txt")


def test_several_sets_of_weights(tmp_path, refused):
    folder = vae_folder(tmp_path / "vae")
    shutil.copy(folder / "model.safetensors", folder / "other.safetensors")
    assert "several sets of weights (model.safetensors, other.safetensors); give one" in refused("--vae", folder)


def test_checkpoints_of_a_training_run(tmp_path, refused):
    for step in (900, 1000):
        stdit3_folder(tmp_path / f"epoch0-global_step{step}" / "model")
    assert "2 checkpoints of a training run; give one" in refused("--stdit", tmp_path)
    assert open_weights(tmp_path / "epoch0-global_step1000").places.keys() == STDIT3.keys()


def test_shards_that_are_missing(tmp_path, refused):
    folder = t5_folder(tmp_path / "t5")
    (folder / "model-00002-of-00003.safetensors").unlink()
    assert "names 3 shards; missing: model-00002-of-00003.safetensors" in refused("--text-encoder", folder)
    (folder / "model.safetensors.index.json").unlink()
    assert "t5 lacks 1 of 3 shards, first model-00002-of-00003.safetensors" in refused("--text-encoder", folder)


@pytest.mark.parametrize("table", [{"a": "../../etc/passwd"}, {"a": 3}, {}, None, ["a"]])
def test_an_index_that_is_none(tmp_path, refused, table):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    assert "weight_map is missing or malformed" in refused("--vae", tmp_path)


def test_a_tensor_in_two_shards(tmp_path, refused):
    folder = t5_folder(tmp_path / "t5")
    shutil.copy(folder / "model-00001-of-00003.safetensors", folder / "model-00002-of-00003.safetensors")
    assert "is in two files" in refused("--text-encoder", folder)


def test_a_text_encoder_without_tokenizer(tmp_path, refused):
    folder = t5_folder(tmp_path / "t5")
    (folder / "spiece.model").write_bytes(b"not sentencepiece")
    assert "no sentencepiece model" in refused("--text-encoder", folder)
    (folder / "spiece.model").unlink()
    assert "spiece.model, the tokenizer, is missing beside the weights of t5" in refused("--text-encoder", folder)


# --- damaged and lying files
# --------------------------------------------------------------------------------------------

F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "data", "length"),
    [
        ({"a": F32}, b"\0" * 4, None),
        ({"a": F32}, b"\0" * 8, 1 << 62),
        ({"a": {**F32, "shape": [1 << 40]}}, b"\0" * 8, None),
        ({"a": {**F32, "shape": [1 << 40, 1 << 40]}}, b"\0" * 8, None),
        ({"a": {**F32, "data_offsets": [8, 16]}}, b"\0" * 8, None),
        ({"a": F32, "b": F32}, b"\0" * 8, None),
        ({"a": {**F32, "shape": [-2]}}, b"\0" * 8, None),
        (b"<html>not found</html>", b"", None),
        (b'{"a":' * 100_000, b"", None),
        (b"", b"", None),
    ],
    ids=["cut", "length", "shape", "overflow", "offset", "overlap", "negative", "html", "deep", "empty"],
)
def test_a_safetensors_file_that_lies(tmp_path, refused, header, data, length):
    path = safetensors_file(tmp_path / "x.safetensors", header, data, length)
    assert "x.safetensors is cut off or damaged" in refused("--vae", path)


def test_a_truncated_shard(tmp_path, refused):
    folder = t5_folder(tmp_path / "t5")
    os.truncate(folder / "model-00003-of-00003.safetensors", 5000)
    assert "model-00003-of-00003.safetensors is cut off or damaged" in refused("--text-encoder", folder)


def test_nans_are_refused_and_named(tmp_path, refused):
    broken = {
        **VAE,
        "temporal_vae.decoder.conv1.conv.bias": np.full_like(VAE["temporal_vae.decoder.conv1.conv.bias"], np.nan),
    }
    folder = vae_folder(tmp_path / "vae", broken)
    assert "the tensor temporal_vae.decoder.conv1.conv.bias holds NaNs" in refused("--vae", folder)


def test_a_constant_of_another_architecture_is_refused(tmp_path, refused):
    folder = stdit3_folder(tmp_path / "stdit3", {**STDIT3, "rope.freqs": 2 * STDIT3["rope.freqs"]})
    assert "rope.freqs holds other values" in refused("--stdit", folder)


# --- weights of something else
# ------------------------------------------------------------------------------------------


def test_the_wrong_part(tmp_path, refused):
    stdit3, vae = stdit3_folder(tmp_path / "stdit3"), vae_folder(tmp_path / "vae")
    assert "--stdit: vae looks like Open-Sora v1.2's VAE" in refused("--stdit", vae)
    assert "give it as --stdit" in refused("--text-encoder", stdit3)


@pytest.mark.parametrize(
    ("name", "looks"),
    [
        ("base_model.model.spatial_blocks.0.attn.qkv.lora_A.weight", "a LoRA"),
        ("model.diffusion_model.input_blocks.0.0.weight", "a Stable Diffusion checkpoint"),
        ("down_blocks.0.attentions.0.proj_in.weight", "a Stable Diffusion UNet"),
        ("encoder.down_blocks.0.resnets.0.conv1.weight", "an image VAE alone"),
        ("blocks.0.attn_temp.qkv.weight", "another video transformer"),
        ("text_model.embeddings.position_embedding.weight", "a CLIP model"),
    ],
)
def test_files_of_other_systems(tmp_path, refused, name, looks):
    save_file({name: np.zeros(2, np.float32)}, tmp_path / "other.safetensors")
    assert f"other.safetensors looks like {looks}" in refused("--stdit", tmp_path / "other.safetensors")


def test_something_unknown(tmp_path, refused):
    save_file({"layer.weight": np.zeros(2, np.float32)}, tmp_path / "x.safetensors")
    assert "x.safetensors holds nothing known" in refused("--vae", tmp_path / "x.safetensors")


def test_tensors_that_do_not_fit_are_listed_together_for_all_parts(tmp_path, refused):
    tensors = {name: value for name, value in STDIT3.items() if name != "final_layer.linear.bias"}
    tensors |= {"stranger": np.zeros(3, np.float32), "t_block.1.bias": np.zeros(5, np.float32)}
    stdit3 = stdit3_folder(tmp_path / "stdit3", tensors)
    vae = vae_folder(tmp_path / "vae", {**VAE, "scale": VAE["scale"].astype(np.int32)})
    shown = refused("--stdit", stdit3, "--vae", vae, lines=None)
    for line in (
        "missing tensor final_layer.linear.bias",
        "unknown tensor stranger [3]",
        "t_block.1.bias has shape [5], which is [5] here; [576] is needed",
        "scale is I32",
    ):
        assert line in shown


def test_sizes_that_contradict_the_config_file_are_listed(tmp_path, refused):
    folder = stdit3_folder(tmp_path / "stdit3")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "depth": 1_000_000}))
    shown = refused("--stdit", folder, lines=None)
    assert "missing tensor spatial_blocks.2.attn.qkv.weight and most others of 1000000 layers" in shown
    for wrong in (
        {"hidden_size": "96"},
        {"depth": 10**12},
        {"num_heads": -1},
        {"mlp_ratio": True},
        {"patch_size": [2, 2]},
    ):
        (folder / "config.json").write_text(json.dumps({**config, **wrong}))
        assert f"config.json: {next(iter(wrong))}" in refused("--stdit", folder)
    (folder / "config.json").write_text("{")
    assert "config.json is not JSON" in refused("--stdit", folder)


def test_parts_of_contradicting_sizes(tmp_path, refused):
    t5 = t5_folder(tmp_path / "t5")
    tensors = {**STDIT3, "y_embedder.y_embedding": STDIT3["y_embedder.y_embedding"][:, :32]}
    tensors["y_embedder.y_proj.fc1.weight"] = STDIT3["y_embedder.y_proj.fc1.weight"][:, :32].copy()
    stdit3 = stdit3_folder(tmp_path / "stdit3", {name: np.ascontiguousarray(value) for name, value in tensors.items()})
    (stdit3 / "config.json").unlink()
    shown = refused("--stdit", stdit3, "--text-encoder", t5)
    assert "do not fit together: stdit3.caption_channels 32 differs from t5.d_model 64" in shown


@pytest.mark.parametrize(("narrowest", "groups"), [(128, 32), (64, 32), (8, 4), (1, 1)])
def test_group_norms_leave_no_trace_in_shapes(narrowest, groups):
    assert num_groups(narrowest) == groups


# --- the output
# ---------------------------------------------------------------------------------------------------------


def test_an_output_that_is_something_else(tmp_path, convert):
    vae = vae_folder(tmp_path / "vae")
    for output in (vae, vae / "config.json"):
        before = sorted(path.name for path in vae.iterdir())
        code, _, shown = convert("--vae", vae, "--output", output)
        assert (code, shown.count("\n")) == (2, 1)
        assert "exists and is not a model folder; choose another name" in shown
        assert sorted(path.name for path in vae.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--output is missing"),
        (["--inspect", "nowhere"], "there is no checkpoint folder nowhere"),
        (["--inspect", "x", "--vae", "y"], "--inspect, --verify and --export-transformer go alone"),
        (["--inspect", "demo", "--dtype", "bfloat16"], "--inspect and --verify write nothing; leave out --output"),
        (["--verify", "demo", "--output", "x"], "--inspect and --verify write nothing; leave out --output"),
        (["--export-stdit", "demo", "--output", "x", "--family", "open-sora-1.2"], "leave out --family"),
        (["--export-stdit", "demo", "--output", "x.bin"], "x.bin must end in .safetensors"),
        (["--ouptut", "x"], "there is no option --ouptut; did you mean --output?"),
    ],
)
def test_mistakes_on_the_command_line(arguments, message, convert):
    code, _, shown = convert(*arguments)
    assert (code, shown.count("\n")) == (2, 1)
    assert message in shown


def test_too_little_space_is_found_before_writing(tmp_path, refused, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    shown = refused("--vae", vae_folder(tmp_path / "vae"))
    assert "0.0 GB are needed" in shown
    assert "free some space" in shown


def test_a_write_that_fails_leaves_nothing(tmp_path):
    """The system refuses to let any file grow beyond a megabyte, as a full disk would."""
    folder, output = vae_folder(tmp_path / "vae"), tmp_path / "out" / "model"
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))"
    script = f"{limited}; from pavdm_jax.convert_weights import main; main()"
    options = ["--vae", str(folder), "--output", str(output), "--quiet"]
    done = subprocess.run([sys.executable, "-c", script, *options], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "vae cannot be written: " in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(output.parent.iterdir()) == []
