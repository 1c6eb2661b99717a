"""Tiny checkpoints in the published layouts (names, files, nesting), from the weights in `tests/golden/`."""

import json
import shutil
from pathlib import Path

from safetensors.numpy import save_file
from support import golden_data

STDIT3, VAE, T5 = (golden_data.load(name)[1]["weights"] for name in ("stdit3_a", "vae_a", "t5_encoder"))


def stdit3_folder(folder: Path, tensors: dict = STDIT3) -> Path:
    """OpenSora-STDiT-v3: one file, and a config.json with the sizes."""
    settings = golden_data.load("stdit3_a")[0]
    keys = ("depth", "hidden_size", "num_heads", "caption_channels", "model_max_length", "mlp_ratio", "patch_size")
    config = {key: settings[key] for key in (*keys, "in_channels", "input_sq_size", "pred_sigma", "qk_norm")}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"architectures": ["STDiT3"], "model_type": "STDiT3", **config}))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def vae_folder(folder: Path, tensors: dict = VAE) -> Path:
    """OpenSora-VAE-v1.2: its config.json has no sizes."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(
        json.dumps({"architectures": ["VideoAutoencoderPipeline"], "micro_frame_size": 17})
    )
    save_file(tensors, folder / "model.safetensors")
    return folder


def t5_folder(folder: Path, tensors: dict = T5, shards: int = 3) -> Path:
    """T5 as safetensors in shards with an index, and its tokenizer."""
    folder.mkdir(parents=True)
    index = {name: f"model-{1 + n % shards:05}-of-{shards:05}.safetensors" for n, name in enumerate(tensors)}
    for file in set(index.values()):
        save_file({name: tensors[name] for name in tensors if index[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    shutil.copy(golden_data.GOLDEN / "spiece.model", folder)
    return folder
