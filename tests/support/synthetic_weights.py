"""Full-size checkpoints with random values: the real names, shapes and layouts, for measuring the conversion.

    python tests/support/synthetic_weights.py stdit3 /tmp/synthetic/OpenSora-STDiT-v3
    python tests/support/synthetic_weights.py vae /tmp/synthetic/OpenSora-VAE-v1.2
    python tests/support/synthetic_weights.py t5 /tmp/synthetic/t5-v1_1-xxl
    python tests/support/synthetic_weights.py skyreels /tmp/synthetic/SkyReels-V2-DF-1.3B-540P-Diffusers

These are 4.8 GB in one safetensors file, 1.6 GB, 19 GB in two .bin files with an index (needs PyTorch), and 29 GB with
all parts, of which the text encoder is in five shards. They are written piece by piece, in less than a gigabyte of
memory.
"""

import argparse
import functools
import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parents[1] / "golden"
PARTS = {"stdit3": "STDiT3-XL/2", "vae": "OpenSora-VAE-v1.2", "t5": "t5-v1_1-xxl-encoder"}
TIED = "encoder.embed_tokens.weight", "shared.weight"  # one tensor under two names
SKYREELS = GOLDEN / "skyreels"
SHARD = 5 * 10**9  # bytes of a shard of safetensors
REPOSITORY = {
    "transformer": (
        "transformer DF-1.3B",
        "diffusion_pytorch_model",
        {"attention_head_dim": 128, "num_attention_heads": 12, "num_layers": 30, "ffn_dim": 8960}
        | {"freq_dim": 256, "text_dim": 4096},
    ),
    "vae": ("vae Wan2.1", "diffusion_pytorch_model", {"base_dim": 96}),
    "text_encoder": (
        "text encoder umT5-XXL",
        "model",
        {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_heads": 64, "num_layers": 24, "vocab_size": 256_384},
    ),
}
"""Of SkyReels-V2-DF in the layout of diffusers: folder → manifest, file, and what differs in the tiny one's config."""
PIECE = 2**24  # values that are in memory at a time


def shapes(part: str) -> dict[str, tuple[int, ...]]:
    """Name → shape of a published network; all of them are float32."""
    manifest = json.loads((GOLDEN / "weight_manifest.json").read_text())
    return {name: tuple(shape) for name, (shape, _) in manifest[PARTS[part]].items()}


def constants(name: str, count: int) -> np.ndarray | None:
    """The values of a tensor that the architecture fixes."""
    return (10_000.0 ** (-np.arange(count) / count)).astype(np.float32) if name == "rope.freqs" else None


@functools.cache
def drawn() -> np.ndarray:
    """[PIECE] normal values of the usual size of weights."""
    return np.random.default_rng(0).standard_normal(PIECE, np.float32) * np.float32(0.02)


def values(name: str, count: int) -> Iterator[np.ndarray]:
    """Random values of a tensor, in pieces; the same for the same name. They are parts of one draw, which is slow."""
    if (fixed := constants(name, count)) is not None:
        yield fixed
        return
    start = int(np.random.default_rng(list(name.encode())).integers(PIECE))
    while count:
        piece = drawn()[start : start + count]
        yield piece
        start, count = 0, count - len(piece)


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


def write_skyreels(folder: Path) -> None:
    """The whole repository; all tensors are float32."""
    tiny = SKYREELS / "checkpoints" / "SkyReels-V2-DF-tiny-Diffusers"
    shutil.copytree(tiny, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors", "*.index.json"))
    manifest = json.loads((SKYREELS / "weight_manifest.json").read_text())
    for part, (name, file, sizes) in REPOSITORY.items():
        config = json.loads((folder / part / "config.json").read_text()) | sizes
        (folder / part / "config.json").write_text(json.dumps(config))
        shards, room = [{}], SHARD
        for _, shape, tensor in manifest[name]["tensors"]:
            if room < (size := 4 * int(np.prod(shape))) and part == "text_encoder":
                shards, room = [*shards, {}], SHARD
            shards[-1][tensor] = tuple(shape)
            room -= size
        if len(shards) == 1:
            write_safetensors(folder / part / f"{file}.safetensors", shards[0])
            continue
        index = {}
        for number, shard in enumerate(shards, 1):
            shard_name = f"{file}-{number:05}-of-{len(shards):05}.safetensors"
            write_safetensors(folder / part / shard_name, shard)
            index |= dict.fromkeys(shard, shard_name)
        (folder / part / f"{file}.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*PARTS, "skyreels"])
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True)
    if arguments.part == "skyreels":
        write_skyreels(arguments.folder)
    elif arguments.part == "t5":
        write_t5(arguments.folder, shapes("t5"))
    else:
        write_safetensors(arguments.folder / "model.safetensors", shapes(arguments.part))


if __name__ == "__main__":
    main()
