"""Full-size checkpoints with random values: the real names, shapes and layouts, for measuring the conversion.

    python tests/support/synthetic_weights.py stdit3 /tmp/synthetic/OpenSora-STDiT-v3
    python tests/support/synthetic_weights.py vae /tmp/synthetic/OpenSora-VAE-v1.2
    python tests/support/synthetic_weights.py t5 /tmp/synthetic/t5-v1_1-xxl

These are 4.8 GB in one safetensors file, 1.6 GB, and 19 GB in two .bin files with an index (needs PyTorch). They
are written piece by piece, in less than a gigabyte of memory.
"""

import argparse
import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parents[1] / "golden"
PARTS = {"stdit3": "STDiT3-XL/2", "vae": "OpenSora-VAE-v1.2", "t5": "t5-v1_1-xxl-encoder"}
TIED = "encoder.embed_tokens.weight", "shared.weight"  # one tensor under two names
PIECE = 2**24  # values that are in memory at a time


def shapes(part: str) -> dict[str, tuple[int, ...]]:
    """Name → shape of a published network; all of them are float32."""
    manifest = json.loads((GOLDEN / "weight_manifest.json").read_text())
    return {name: tuple(shape) for name, (shape, _) in manifest[PARTS[part]].items()}


def constants(name: str, count: int) -> np.ndarray | None:
    """The values of a tensor that the architecture fixes."""
    return (10_000.0 ** (-np.arange(count) / count)).astype(np.float32) if name == "rope.freqs" else None


def values(name: str, count: int) -> Iterator[np.ndarray]:
    """Random values of a tensor, in pieces; the same for the same name."""
    if (fixed := constants(name, count)) is not None:
        yield fixed
        return
    rng = np.random.default_rng(list(name.encode()))
    for start in range(0, count, PIECE):
        yield rng.standard_normal(min(PIECE, count - start), np.float32) * np.float32(0.02)


def write_safetensors(path: Path, tensors: dict[str, tuple[int, ...]]) -> None:
    """One file; see https://huggingface.co/docs/safetensors for the format."""
    header, end = {}, 0
    for name, shape in tensors.items():
        start, end = end, end + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in tensors.items():
            for piece in values(name, int(np.prod(shape))):
                file.write(piece.data)


def write_bin(path: Path, tensors: dict[str, tuple[int, ...]]) -> None:
    """What `torch.save` writes: it makes the file without values, which are then put where its entries are."""
    import torch

    state = {name: torch.empty(shape) for name, shape in tensors.items() if name != TIED[0]}  # never touched, no memory
    if TIED[0] in tensors:
        state[TIED[0]] = state[TIED[1]]
    with torch.serialization.skip_data():
        torch.save(state, path)
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename.split("/", 1)[1]: entry for entry in archive.infolist()}
    with path.open("r+b") as file:
        for number, (name, tensor) in enumerate((n, t) for n, t in state.items() if n != TIED[0]):
            entry = entries[f"data/{number}"]
            assert entry.file_size == 4 * tensor.numel()
            file.seek(entry.header_offset + 26)
            lengths = np.frombuffer(file.read(4), "<u2")
            file.seek(entry.header_offset + 30 + int(lengths.sum()))
            for piece in values(name, tensor.numel()):
                file.write(piece.data)


def write_t5(folder: Path, tensors: dict[str, tuple[int, ...]]) -> None:
    """Two shards of about the same size, an index, and a sentencepiece model."""
    total, seen, shards = sum(int(np.prod(shape)) for shape in tensors.values()), 0, ({}, {})
    for name, shape in tensors.items():
        shards[0 if seen < total / 2 else 1][name] = shape
        seen += int(np.prod(shape))
    index = {}
    for number, shard in enumerate(shards, 1):
        name = f"pytorch_model-{number:05}-of-00002.bin"
        write_bin(folder / name, shard)
        index |= dict.fromkeys(shard, name)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    shutil.copy(GOLDEN / "spiece.model", folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True)
    if arguments.part == "t5":
        write_t5(arguments.folder, shapes("t5"))
    else:
        write_safetensors(arguments.folder / "model.safetensors", shapes(arguments.part))


if __name__ == "__main__":
    main()
