"""PyTorch's own files: every layout, read without executing anything; skipped, with a reason, where PyTorch is not
installed."""

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from support.published_layouts import STDIT3, T5

from pavdm_jax.checkpoints.load import load
from pavdm_jax.conversion.sources import open_weights

torch = pytest.importorskip("torch", reason="reading PyTorch's files needs the extra: pip install 'pavdm_jax[torch]'")


def tensors_of(arrays):
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}


# --- layouts
# ------------------------------------------------------------------------------------------------------------


def in_shards(folder, arrays):
    index = {name: f"pytorch_model-{1 + n % 2:05}-of-00002.bin" for n, name in enumerate(sorted(arrays))}
    for file in sorted(set(index.values())):
        torch.save(tensors_of({name: arrays[name] for name in index if index[name] == file}), folder / file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))


def in_training_folder(folder, arrays):
    (folder / "model").mkdir()
    in_shards(folder / "model", {name: 2 * array for name, array in arrays.items()})
    torch.save(tensors_of(arrays), folder / "ema.pt")


def in_training_folder_without_average(folder, arrays):
    (folder / "model").mkdir()
    in_shards(folder / "model", arrays)


def nested(folder, arrays):
    state = {f"module.{name}": tensor for name, tensor in tensors_of(arrays).items()}
    torch.save({"epoch": 3, "state_dict": state, "lr": 1e-4}, folder / "checkpoint.pth")


def averaged(folder, arrays):
    torch.save({"model": tensors_of({"x": np.zeros(1)}), "ema": tensors_of(arrays)}, folder / "both.pt")


def in_bfloat16(folder, arrays):
    torch.save({name: tensor.bfloat16() for name, tensor in tensors_of(arrays).items()}, folder / "pytorch_model.bin")


def transposed(folder, arrays):
    state = {name: t.T.contiguous().T if t.ndim == 2 else t for name, t in tensors_of(arrays).items()}
    torch.save(state, folder / "pytorch_model.bin")


LAYOUTS = (
    in_shards,
    in_training_folder,
    in_training_folder_without_average,
    nested,
    averaged,
    in_bfloat16,
    transposed,
)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_pytorch(tmp_path, layout):
    layout(tmp_path, STDIT3)
    weights = open_weights(tmp_path)
    assert weights.shapes == {name: array.shape for name, array in STDIT3.items()}
    for name, (file, raw) in weights.places.items():
        exact = STDIT3[name] if layout is not in_bfloat16 else torch.from_numpy(STDIT3[name]).bfloat16().float().numpy()
        for _ in range(2):  # the pages that were read are given back, and come again
            np.testing.assert_array_equal(file.read(raw).astype(np.float32), exact)


def test_an_open_sora_training_folder_is_converted(tmp_path, convert):
    in_training_folder(tmp_path, STDIT3)
    assert convert("--stdit", tmp_path, "--output", tmp_path / "result")[0] == 0
    table = load(tmp_path / "result", parts=["stdit3"]).params["stdit3"]["final_table"]
    np.testing.assert_array_equal(table, STDIT3["final_layer.scale_shift_table"])


# --- files that are not to be trusted
# -----------------------------------------------------------------------------------


class Payload:
    """What a malicious file would run when it is loaded."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def test_a_pickle_that_wants_to_run_code_is_refused(tmp_path, refused):
    torch.save({"x_embedder.proj.weight": torch.zeros(2), "payload": Payload(tmp_path / "ran")}, tmp_path / "evil.pt")
    shown = refused("--stdit", tmp_path / "evil.pt")
    assert "evil.pt is refused: it wants to run posix.mkdir" in shown
    assert not (tmp_path / "ran").exists()


def test_a_damaged_pickle(tmp_path, refused):
    torch.save(tensors_of(T5), tmp_path / "cut.bin")
    os.truncate(tmp_path / "cut.bin", 3000)
    assert "cut.bin is cut off, damaged, or written by PyTorch before 1.6" in refused("--vae", tmp_path / "cut.bin")
    torch.save([torch.zeros(2)], tmp_path / "list.bin")
    assert "list.bin holds no dictionary of tensors" in refused("--vae", tmp_path / "list.bin")
    torch.save({"optimizer": {"lr": 1.0}}, tmp_path / "none.bin")
    assert "none.bin holds no tensors; its entries are optimizer" in refused("--vae", tmp_path / "none.bin")


def test_a_pickle_that_claims_more_than_it_holds(tmp_path, refused):
    torch.save({"x_embedder.proj.weight": torch.zeros(1).expand(1 << 40)}, tmp_path / "vast.pt")
    assert "claims more than the file holds" in refused("--stdit", tmp_path / "vast.pt")


def test_a_compressed_archive_is_refused(tmp_path, refused):
    torch.save({"a": torch.zeros(1000)}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as old, zipfile.ZipFile(tmp_path / "bomb.pt", "w") as new:
        for entry in old.namelist():
            new.writestr(entry, old.read(entry), zipfile.ZIP_DEFLATED)
    assert "bomb.pt is refused: its entries are compressed" in refused("--stdit", tmp_path / "bomb.pt")
