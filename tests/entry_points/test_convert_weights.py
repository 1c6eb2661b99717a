"""The conversion through its command line: every layout, single parts, the way back, and nothing half-written."""

import dataclasses
import fcntl
import hashlib
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support import golden_data
from support.golden_data import FORWARD_TOLERANCE, channels_last, relative_error
from support.published_layouts import STDIT3, T5, VAE, stdit3_folder, t5_folder, vae_folder
from support.pytorch_layout import to_params

from pavdm_jax import convert_weights
from pavdm_jax.checkpoints.load import load
from pavdm_jax.config import STDIT3_3B, STDiT3Config, T5Config, VAEConfig
from pavdm_jax.conversion.architecture import KINDS, identify, model_config
from pavdm_jax.conversion.rules import assign, names_of
from pavdm_jax.errors import ConfigError
from pavdm_jax.models.level_pattern import PRETRAINED
from pavdm_jax.models.model import PARTS, abstract_params
from pavdm_jax.models.stdit3 import STDiT3
from pavdm_jax.models.t5 import T5Encoder
from pavdm_jax.models.vae import VideoVAE


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The three repositories, tiny."""
    root = tmp_path_factory.mktemp("published")
    stdit3_folder(root / "OpenSora-STDiT-v3"), vae_folder(root / "OpenSora-VAE-v1.2"), t5_folder(root / "t5-v1_1-xxl")
    return root


@pytest.fixture(scope="module")
def converted(published, tmp_path_factory):
    """All three parts in float32."""
    output = tmp_path_factory.mktemp("models") / "open-sora"
    options = ["--stdit", published / "OpenSora-STDiT-v3", "--vae", published / "OpenSora-VAE-v1.2"]
    options += ["--text-encoder", published / "t5-v1_1-xxl", "--output", output, "--quiet"]
    assert convert_weights.run(convert_weights.read([str(option) for option in options])) == 0
    return output


def expected_params(config, part, tensors):
    part_config = {"stdit3": config.stdit3, "vae": config.vae, "t5": config.t5}[part]
    return to_params(KINDS[part].rules(part_config, tensors), tensors, abstract_params(config)[part])


# --- the tables -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "part", "size"),
    [
        ("STDiT3-XL/2", "stdit3", STDiT3Config()),
        ("STDiT3-3B/2", "stdit3", STDIT3_3B),
        ("OpenSora-VAE-v1.2", "vae", VAEConfig()),
        ("t5-v1_1-xxl-encoder", "t5", T5Config()),
    ],
)
def test_every_published_tensor_has_its_place_and_every_parameter_its_tensor(name, part, size):
    manifest = json.loads((golden_data.GOLDEN / "weight_manifest.json").read_text())[name]
    shapes = {tensor: tuple(shape) for tensor, (shape, _) in manifest.items()}
    assert identify(shapes) == part
    config = KINDS[part].config(shapes, {})
    assert config == size
    expected = abstract_params(model_config(None, set(), {part: config}))[part]
    rules = KINDS[part].rules(config, shapes)
    implied = {rule.source for rule in rules if not rule.target} | {rule.alias for rule in rules if rule.alias}
    assert set(shapes) - set(assign(rules, shapes, expected)) <= implied
    flat = {"/".join(key.key for key in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(expected)}
    back = {source: rule.shape_there(flat[rule.target].shape) for source, rule, _ in names_of(rules, expected)}
    assert back == {source: shape for source, shape in shapes.items() if source not in implied}


# --- golden outputs ---------------------------------------------------------------------------------------------------


def test_converted_weights_reproduce_the_reference(converted):
    model = load(converted, PARTS)
    _, golden = golden_data.load("t5_encoder")
    mask = golden["inputs"]["attention_mask"].astype(bool)
    ids, lengths = golden["inputs"]["input_ids"].astype(np.int32), mask.sum(1).astype(np.int32)
    features = jax.jit(T5Encoder(model.config.t5).apply)({"params": model.params["t5"]}, ids, lengths)
    assert relative_error(features, golden["outputs"]["last_hidden_state"]) < FORWARD_TOLERANCE

    _, golden = golden_data.load("vae_a")
    vae = VideoVAE(model.config.vae)
    encode = jax.jit(lambda params, video: vae.apply({"params": params}, video, method="encode"))
    latents = encode(model.params["vae"], channels_last(golden["inputs"]["video_1"]))
    assert relative_error(latents, channels_last(golden["outputs"]["latent_1"])) < FORWARD_TOLERANCE

    _, golden = golden_data.load("stdit3_a")
    network, inputs = STDiT3(model.config.stdit3), golden["inputs"]
    params, lengths = {"params": model.params["stdit3"]}, inputs["text_mask"].sum(1, dtype=np.int32)[:, None]
    caption = network.apply(params, jnp.asarray(inputs["y"]), lengths, method="encode_caption")
    video = inputs["fps"], inputs["height"], inputs["width"]
    output = network.apply(params, channels_last(inputs["x"]), inputs["t_per_frame"] / 1000, caption, *video)
    assert relative_error(output, channels_last(golden["outputs"]["per_frame_t"])) < FORWARD_TOLERANCE


def test_every_parameter_is_the_published_one(converted):
    model = load(converted, PARTS)
    for part, tensors in (("stdit3", STDIT3), ("vae", VAE), ("t5", T5)):
        jax.tree.map(np.testing.assert_array_equal, model.params[part], expected_params(model.config, part, tensors))


# --- parts, dtypes, records -------------------------------------------------------------------------------------------


def test_parts_are_added_one_by_one_and_replaced(published, tmp_path, convert):
    output = tmp_path / "new" / "model"
    assert convert("--vae", published / "OpenSora-VAE-v1.2", "--output", output)[0] == 0
    with pytest.raises(ConfigError, match="has no stdit3; it holds vae"):
        load(output, parts=["stdit3", "vae"])
    before = {path: path.read_bytes() for path in (output / "params" / "vae").rglob("*") if path.is_file()}
    assert convert("--text-encoder", published / "t5-v1_1-xxl", "--output", output)[0] == 0
    # sizes of the absent transformer follow the parts that are there, so that it still fits
    assert load(output, parts=["vae", "t5"]).config.stdit3.caption_channels == T5["shared.weight"].shape[1]
    doubled = stdit3_folder(tmp_path / "doubled", {n: 2 * v if n != "rope.freqs" else v for n, v in STDIT3.items()})
    for source in (published / "OpenSora-STDiT-v3", doubled):
        assert convert("--stdit", source, "--output", output)[0] == 0
    assert {path: path.read_bytes() for path in before} == before
    table = load(output).params["stdit3"]["final_table"]
    np.testing.assert_array_equal(table, 2 * STDIT3["final_layer.scale_shift_table"])
    assert sorted(path.name for path in output.parent.iterdir()) == ["model"]


def test_bfloat16_is_stored_for_matrices_and_read_as_asked(published, tmp_path, convert):
    output = tmp_path / "model"
    assert convert("--stdit", published / "OpenSora-STDiT-v3", "--dtype", "bfloat16", "--output", output)[0] == 0
    for dtype in ("float32", "bfloat16"):
        params = load(output, parts=["stdit3"], dtype=dtype).params["stdit3"]
        kernel, exact = params["blocks"]["spatial"]["qkv"]["kernel"], STDIT3["spatial_blocks.1.attn.qkv.weight"].T
        assert kernel.dtype == dtype
        np.testing.assert_array_equal(kernel[1].astype(np.float32), exact.astype(ml_dtypes.bfloat16).astype(np.float32))
        np.testing.assert_array_equal(params["null_caption"], STDIT3["y_embedder.y_embedding"])


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_half_and_double_precision_sources(tmp_path, convert, dtype):
    tensors = {name: value.astype(dtype) for name, value in VAE.items()}
    save_file(tensors, tmp_path / "vae.safetensors")
    assert convert("--vae", tmp_path / "vae.safetensors", "--output", tmp_path / "model")[0] == 0
    model = load(tmp_path / "model", parts=["vae"])
    exact = {name: value.astype(np.float32) for name, value in tensors.items()}
    jax.tree.map(np.testing.assert_array_equal, model.params["vae"], expected_params(model.config, "vae", exact))


def test_sources_are_recorded_without_local_paths(converted, published, convert):
    code, shown, _ = convert("--inspect", converted)
    assert code == 0
    assert str(published) not in (converted / "parts.json").read_text() + shown.replace(str(converted), "")
    record = json.loads((converted / "parts.json").read_text())["stdit3"]
    file = published / "OpenSora-STDiT-v3" / "model.safetensors"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert record["source"] == "OpenSora-STDiT-v3"
    assert record["source_files"] == {"model.safetensors": {"bytes": file.stat().st_size, "sha256": digest}}
    count = sum(tensor.size for name, tensor in STDIT3.items() if name != "rope.freqs")
    assert (record["parameters"], record["dtype"]) == (count, "float32")
    assert record["trained_with"] == [dataclasses.asdict(PRETRAINED)]
    assert load(converted).trained_with == (PRETRAINED,)
    for part in (
        digest,
        f"trained with {PRETRAINED}",
        "stdit3: 742.4 k parameters (742.4 k in float32)",
        "from t5-v1_1-xxl",
        "tokenizer: 74 ids",
    ):
        assert part in shown


def test_the_embedded_model_can_be_inspected(convert):
    code, shown, _ = convert("--inspect", "demo")
    assert code == 0
    assert "from training here" in shown


def test_a_model_folder_is_verified(converted, tmp_path, convert):
    code, shown, _ = convert("--verify", converted)
    assert code == 0
    assert shown.startswith(f"{converted}: all ") and shown.endswith(" are as they were written\n")
    assert convert("--verify", "demo")[0] == 0
    folder = shutil.copytree(converted, tmp_path / "model")
    damaged = max((folder / "params" / "t5").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    code, _, shown = convert("--verify", folder)
    assert (code, shown.count("\n")) == (2, 1)
    assert "is damaged: 1 files have changed since they were written" in shown
    parts = json.loads((folder / "parts.json").read_text())
    for record in parts.values():
        del record["crc32"]
    (folder / "parts.json").write_text(json.dumps(parts))
    code, _, shown = convert("--verify", folder)
    assert (code, shown.count("\n")) == (2, 1)
    assert "has no checksums of stdit3: an earlier version wrote it" in shown


# --- layouts ----------------------------------------------------------------------------------------------------------


def numbered(path):
    (path / "model.safetensors.index.json").unlink()


@pytest.mark.parametrize("change", [lambda path: None, numbered], ids=["index", "numbered"])
def test_safetensors_in_shards(tmp_path, convert, change):
    folder = t5_folder(tmp_path / "t5")
    change(folder)
    assert convert("--text-encoder", folder, "--output", tmp_path / "model")[0] == 0
    model = load(tmp_path / "model", parts=["t5"])
    jax.tree.map(np.testing.assert_array_equal, model.params["t5"], expected_params(model.config, "t5", T5))
    assert len(json.loads((tmp_path / "model" / "parts.json").read_text())["t5"]["source_files"]) == 3


@pytest.mark.parametrize("name", ["shared.weight", "encoder.embed_tokens.weight"])
def test_either_name_of_the_token_table_will_do(tmp_path, convert, name):
    folder = t5_folder(tmp_path / "t5", {key: value for key, value in T5.items() if key != name})
    assert convert("--text-encoder", folder, "--output", tmp_path / "model")[0] == 0
    table = load(tmp_path / "model", parts=["t5"]).params["t5"]["token_embedding"]
    np.testing.assert_array_equal(table, T5["shared.weight"])


def test_sizes_come_from_shapes_where_config_is_silent(tmp_path, published, converted, convert):
    folder = stdit3_folder(tmp_path / "stdit3")
    (folder / "config.json").unlink()
    assert convert("--stdit", folder / "model.safetensors", "--output", tmp_path / "model")[0] == 0
    assert load(tmp_path / "model", parts=["stdit3"]).config.stdit3 == load(converted, parts=[]).config.stdit3


def test_names_with_a_trainers_prefix(tmp_path, convert):
    folder = vae_folder(tmp_path / "vae", {f"module.model.{name}": value for name, value in VAE.items()})
    assert convert("--vae", folder, "--output", tmp_path / "model")[0] == 0
    np.testing.assert_array_equal(load(tmp_path / "model", parts=["vae"]).params["vae"]["scale"], VAE["scale"].ravel())


# --- there and back ---------------------------------------------------------------------------------------------------


def test_the_transformer_returns_to_the_published_layout(converted, tmp_path, convert):
    file = tmp_path / "out" / "model.safetensors"
    assert convert("--export-stdit", converted, "--output", file)[0] == 0
    back = load_file(file)
    assert set(back) == set(STDIT3)
    for name, tensor in STDIT3.items():
        np.testing.assert_allclose(back[name], tensor, rtol=1e-6 if name == "rope.freqs" else 0, err_msg=name)
    assert convert("--stdit", file, "--output", tmp_path / "again")[0] == 0
    again, first = load(tmp_path / "again", parts=["stdit3"]), load(converted, parts=["stdit3"])
    jax.tree.map(np.testing.assert_array_equal, again.params, first.params)
    assert again.trained_with == ()  # weights without a config.json may be anyone's
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_export_in_bfloat16(converted, tmp_path, convert):
    file = tmp_path / "model.safetensors"
    assert convert("--export-stdit", converted, "--output", file, "--dtype", "bfloat16")[0] == 0
    for name, tensor in load_file(file).items():
        assert tensor.dtype == ml_dtypes.bfloat16
        np.testing.assert_allclose(tensor.astype(np.float32), STDIT3[name], rtol=0.01)


# --- interruptions ----------------------------------------------------------------------------------------------------

INTERRUPTED = """
import os, signal, sys
from pavdm_jax import convert_weights
from pavdm_jax.conversion.tensor_files import SafetensorsFile
read, left = SafetensorsFile.read, [40]
def counted(self, name):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGNAL)
    return read(self, name)
SafetensorsFile.read = counted
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background has it ignored
convert_weights.main()
"""


@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT"])
def test_an_interrupted_conversion_leaves_nothing_that_loads(published, tmp_path, convert, name):
    output = tmp_path / "model"
    options = ["--stdit", str(published / "OpenSora-STDiT-v3"), "--output", str(output)]
    script = INTERRUPTED.replace("SIGNAL", name)
    done = subprocess.run([sys.executable, "-c", script, *options], capture_output=True, text=True)
    assert done.returncode == (-signal.SIGKILL if name == "SIGKILL" else 130), done.stderr
    if name == "SIGINT":
        assert done.stderr.splitlines()[-1] == "interrupted; nothing was written"
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="no checkpoint folder"):
        load(output)
    assert convert(*options)[0] == 0
    assert load(output, parts=["stdit3"]).params
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_part_that_is_being_replaced_is_absent_until_it_is_whole(published, tmp_path, convert, monkeypatch):
    output = tmp_path / "model"
    options = ["--stdit", published / "OpenSora-STDiT-v3", "--vae", published / "OpenSora-VAE-v1.2", "--output", output]
    assert convert(*options)[0] == 0
    rename = Path.rename

    def stop(path, target):
        if Path(target).name == "vae":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", stop)
    assert convert("--vae", published / "OpenSora-VAE-v1.2", "--output", output)[0] == 130
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="has no vae; it holds stdit3"):
        load(output, parts=["vae"])
    assert load(output, parts=["stdit3"]).params


@pytest.mark.parametrize("option", ["--transformer", "--vae", "--text-encoder"])
def test_an_empty_option_does_not_download_everything(option):
    with pytest.raises(ConfigError, match=f"{option} is empty; give a folder, a file, or the name of a repository"):
        convert_weights.read([option, "", "--output", "model"])


def test_two_conversions_into_one_folder_do_not_meet(published, tmp_path, convert):
    with open(tmp_path / ".model.converting.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, _, shown = convert("--vae", published / "OpenSora-VAE-v1.2", "--output", tmp_path / "model")
    assert code == 2
    assert "another process is converting weights into model" in shown


WITHOUT_TORCH = """
import sys
class Absent:
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name=name)
sys.meta_path.insert(0, Absent())
from pavdm_jax.convert_weights import main
main()
"""


def test_safetensors_need_no_torch_and_pickles_say_so(published, tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"anything")

    def run(vae):
        options = ["--vae", str(vae), "--output", str(tmp_path / "model"), "--quiet"]
        return subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *options], capture_output=True, text=True)

    done = run(tmp_path / "weights.bin")
    assert done.returncode == 2
    assert done.stderr == "error: reading weights.bin needs PyTorch: pip install 'pavdm_jax[torch]'\n"
    whole = [sys.executable, "-c", WITHOUT_TORCH, "--output", str(tmp_path / "whole"), "--quiet"]
    done = subprocess.run(whole, capture_output=True, text=True)  # nothing is downloaded before
    said = "error: reading DeepFloyd/t5-v1_1-xxl needs PyTorch: pip install 'pavdm_jax[torch]'\n"
    assert (done.returncode, done.stderr) == (2, said)
    shutil.copytree(published / "t5-v1_1-xxl", tmp_path / "DeepFloyd" / "t5-v1_1-xxl")  # a folder, in safetensors
    here = [*whole, "--text-encoder", "DeepFloyd/t5-v1_1-xxl"]
    assert subprocess.run(here, cwd=tmp_path).returncode == 0
    assert run(published / "OpenSora-VAE-v1.2").returncode == 0
    assert load(tmp_path / "model", parts=["vae"]).params
