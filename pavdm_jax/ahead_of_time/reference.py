"""The reference's networks, imported from a checkout of the user's: STDiT3 and the video VAE, in PyTorch.

The checkout is Open-Sora v1.2 or the paper's `desaixie/pa_vdm`, which is built on it; nothing of either is kept here.
Its `__init__` files, which import every model that it has, are passed over, and so is its loading of checkpoints:
weights are random. Two packages with kernels for GPUs have stand-ins, `xformers.ops.memory_efficient_attention` and
`flash_attn.flash_attn_func`: both call PyTorch's `scaled_dot_product_attention`.
"""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np

from pavdm_jax.config import ModelConfig, STDiT3Config
from pavdm_jax.conversion.rules import Rule, assign
from pavdm_jax.errors import ConfigError
from pavdm_jax.models.model import flatten, unflatten

NEEDED = ("torch", "timm", "diffusers", "transformers", "mmengine", "rotary_embedding_torch")
"""Packages that its networks import."""

WITHOUT_INIT = ("", ".models", ".models.layers", ".models.stdit", ".models.vae", ".acceleration", ".utils")


def open_checkout(path: str) -> None:
    """Let `opensora` be the package of a checkout.

    Raises:
      ConfigError: it is none, or packages that it imports are missing.
    """
    root = Path(path).expanduser() / "opensora"
    if not (root / "models/stdit/stdit3.py").is_file():
        raise ConfigError(
            f"--against {path} is no checkout of Open-Sora v1.2: it has no opensora/models/stdit/stdit3.py; "
            "give the folder of one, or of desaixie/pa_vdm"
        )
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"--against needs packages that are not installed: pip install {' '.join(missing)}")
    for name in ("transformers.modeling_utils", "diffusers.models.autoencoders"):
        importlib.import_module(name)  # before the stand-ins: these ask what is installed
    for name in WITHOUT_INIT:
        package = ModuleType(f"opensora{name}")
        package.__path__ = [str(root.joinpath(*name.split(".")))]
        sys.modules[package.__name__] = package
    _stand_in("opensora.utils.ckpt_utils", load_checkpoint=None)
    bias = mock.Mock(from_seqlens=lambda queries, keys: (queries, keys))
    operations = _stand_in(
        "xformers.ops", memory_efficient_attention=_cross_attention, fmha=mock.Mock(BlockDiagonalMask=bias)
    )
    _stand_in("xformers", ops=operations)
    _stand_in("flash_attn", flash_attn_func=_self_attention)


def _stand_in(name: str, **members: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(members)
    sys.modules[name] = module
    return module


def _self_attention(q: Any, k: Any, v: Any, dropout_p: float, softmax_scale: float, causal: bool) -> Any:
    """Attention [b, s, n, e] as of flash_attn."""
    from torch.nn.functional import scaled_dot_product_attention

    q, k, v = (array.transpose(1, 2) for array in (q, k, v))
    out = scaled_dot_product_attention(q, k, v, dropout_p=dropout_p, scale=softmax_scale, is_causal=causal)
    return out.transpose(1, 2)


def _cross_attention(q: Any, k: Any, v: Any, p: float, attn_bias: tuple[Sequence[int], Sequence[int]]) -> Any:
    """Attention [1, b · s, n, e] of samples that follow each other, of xformers; here they have equal lengths."""
    samples = len(attn_bias[0])
    q, k, v = (array.view(samples, -1, *array.shape[2:]) for array in (q, k, v))
    return _self_attention(q, k, v, p, q.shape[-1] ** -0.5, False).reshape(1, -1, *q.shape[2:])


def stdit3(config: STDiT3Config, fused_attention: bool) -> Any:
    """The reference's transformer with random weights; `fused_attention` is its switch for flash attention."""
    module = importlib.import_module("opensora.models.stdit.stdit3")
    settings = {
        "input_sq_size": config.base_size,
        "in_channels": config.latent_channels,
        "hidden_size": config.hidden_size,
        "depth": config.depth,
        "num_heads": config.num_heads,
        "mlp_ratio": config.mlp_ratio,
        "caption_channels": config.caption_channels,
        "model_max_length": config.max_caption_tokens,
        "enable_flash_attn": fused_attention,
        "pa_vdm": has_frame_levels(),  # other checkouts have no such setting and ignore it
    }
    model = module.STDiT3(module.STDiT3Config(**settings)).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:  # no norms; it begins with matrices of 0, which would leave out whole blocks
            parameter.data.normal_(std=0.02)
    return model


def has_frame_levels() -> bool:
    """Whether the checkout's transformer takes a level for each frame, as the paper's code does."""
    module = importlib.import_module("opensora.models.stdit.stdit3")
    return "pa_vdm" in inspect.signature(module.STDiT3Config.__init__).parameters


def vae(config: ModelConfig) -> Any:
    """The reference's VAE, of published size, with random weights."""
    autoencoder = importlib.import_module("diffusers.models").AutoencoderKL
    spatial = config.vae.spatial
    levels = len(spatial.block_channels)
    random = autoencoder(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=spatial.block_channels,
        layers_per_block=spatial.layers_per_block,
        latent_channels=spatial.latent_channels,
        norm_num_groups=spatial.num_groups,
    )
    importlib.import_module("opensora.models.vae.vae_temporal")
    module = importlib.import_module("opensora.models.vae.vae")
    with mock.patch.object(autoencoder, "from_pretrained", return_value=random):
        return module.OpenSoraVAE_V1_2().eval()


def guided(model: Callable[..., Any], scale: float) -> Callable[..., Any]:
    """A guided call of its transformer, as its sampler makes it: both halves in one batch, and only the velocity."""
    import torch

    def call(latents: Any, timesteps: Any, *rest: Any, **named: Any) -> Any:
        out = model(torch.cat([latents] * 2), torch.cat([timesteps] * 2), *rest, **named)
        with_prompt, without = out.chunk(2, dim=1)[0].chunk(2)
        return without + scale * (with_prompt - without)

    return call


def parameters(model: Any, rules: list[Rule], expected: Any) -> dict:
    """The weights of one of its networks as our parameters, whose shapes are `expected`."""
    tensors = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    flat = {path: np.empty(leaf.shape, np.float32) for path, leaf in flatten(expected).items()}
    for name, place in assign(rules, {name: tensor.shape for name, tensor in tensors.items()}, expected).items():
        if place.rule.target:
            array = flat[place.rule.target]
            (array[place.layer] if place.rule.stacked else array)[...] = place.rule.to_ours(tensors[name])
    return unflatten(flat)
