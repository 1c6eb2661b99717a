"""Recognises which network of which family a set of tensors is, and makes the config of a model of its parts."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pavdm_jax.config import OPEN_SORA_1_2, ModelConfig
from pavdm_jax.conversion.open_sora import stdit3_rules, t5_rules, vae_rules
from pavdm_jax.conversion.open_sora_sizes import stdit3_config, t5_config, vae_config
from pavdm_jax.conversion.rules import Rule
from pavdm_jax.conversion.wan import layout_of, umt5_config, umt5_rules, wan_config, wan_rules
from pavdm_jax.conversion.wan_vae import wan_vae_config, wan_vae_rules
from pavdm_jax.errors import ConfigError
from pavdm_jax.families import PUBLISHED, AnyModelConfig
from pavdm_jax.wan_config import SKYREELS_V2_DF_1_3B_MODEL, WanModelConfig, WanVAEConfig

UNKNOWN = "skyreels-v2-df"
"""The name of a model of the family whose transformer is none of the published ones, or not there yet."""

OPTIONS = {"stdit3": "--stdit", "wan": "--transformer", "vae": "--vae", "t5": "--text-encoder"}


@dataclass(frozen=True)
class Kind:
    """A network that can be converted.

    Attributes:
      title: in words.
      part: its name in a model.
      family: the class of configs of models that it is a part of.
      config: (shapes of its tensors by name, content of config.json) -> its sizes.
      rules: (sizes, names of its tensors) -> where each tensor goes.
    """

    title: str
    part: str
    family: type
    config: Callable[[Mapping[str, tuple[int, ...]], Mapping[str, Any]], Any]
    rules: Callable[[Any, Mapping[str, Any]], list[Rule]]


KINDS = {
    "stdit3": Kind(
        "Open-Sora v1.2's transformer (STDiT3)", "stdit3", ModelConfig, stdit3_config, lambda c, _: stdit3_rules(c)
    ),
    "vae": Kind("Open-Sora v1.2's VAE", "vae", ModelConfig, vae_config, lambda c, _: vae_rules(c)),
    "t5": Kind("a T5 v1.1 text encoder", "t5", ModelConfig, t5_config, lambda c, _: t5_rules(c)),
    "wan": Kind(
        "a transformer of SkyReels-V2-DF or Wan 2.1",
        "wan",
        WanModelConfig,
        wan_config,
        lambda c, names: wan_rules(c, layout_of(names)),
    ),
    "wan-vae": Kind("Wan 2.1's VAE", "vae", WanModelConfig, wan_vae_config, lambda c, _: wan_vae_rules(c)),
    "umt5": Kind(
        "an umT5 text encoder",
        "t5",
        WanModelConfig,
        umt5_config,
        lambda c, names: umt5_rules(c, layout_of(names)),
    ),
}

SIGNS = (
    (
        r".*(lora_[AB]|lora_up|lora_down|lora_embedding).*",
        "a LoRA, which changes a model and is none; merge it into its model first",
    ),
    (r"(spatial_vae\.module|temporal_vae)\..*", "vae"),
    (r"(spatial|temporal)_blocks\.\d+\..*", "stdit3"),
    (r"(blocks\.\d+\.self_attn\.norm_q|condition_embedder\.time_proj)\.weight", "wan"),
    (r"(encoder|decoder)\..*\.gamma", "wan-vae"),
    (r"blocks\.\d+\.pos_embedding\.embedding\.weight", "umt5"),
    (r"encoder\.block\.[1-9]\d*\.layer\.0\.SelfAttention\.relative_attention_bias\.weight", "umt5"),
    (r"encoder\.block\.\d+\.layer\.1\.DenseReluDense\.wi_0\.weight", "t5"),
    (r"encoder\.block\.\d+\.layer\.1\.DenseReluDense\.wi\.weight", "a T5 of version 1.0; version 1.1 is needed"),
    (
        r"(diffusion_model|model\.diffusion_model|cond_stage_model|first_stage_model)\..*",
        "a Stable Diffusion checkpoint",
    ),
    (r"(down_blocks\.\d+\.attentions|mid_block\.attentions|time_embedding)\..*", "a Stable Diffusion UNet"),
    (r"(encoder|decoder)\.(down_blocks|up_blocks|mid_block)\..*", "an image VAE alone, without its temporal half"),
    (r"(text_model|vision_model)\..*", "a CLIP model"),
    (r"blocks\.\d+\.(attn|cross_attn|attn_temp)\..*", "another video transformer (Open-Sora 1.0 or 1.1, or PixArt)"),
    (r"(double_blocks|single_blocks|transformer_blocks)\.\d+\..*", "a transformer of another system"),
)
"""Patterns of tensor names, and the network that has them; the first pattern that matches any name decides."""


def identify(names: Mapping[str, Any]) -> str:
    """What a set of tensor names is: a key of `KINDS`, another network in words, or "" for something unknown."""
    for pattern, kind in SIGNS:
        if any(re.fullmatch(pattern, name) for name in names):
            return kind
    return ""


def family_of(parts: Mapping[str, Mapping[str, Any]], base: AnyModelConfig | None) -> type:
    """The class of configs of a model with parts of such tensor names: that of `base`, or as they are recognised."""
    if base is not None:
        return type(base)
    kinds = [KINDS[kind] for kind in map(identify, parts.values()) if kind in KINDS]
    first = next((kind for kind in kinds if kind.part not in ("vae", "t5")), kinds[0] if kinds else None)
    return ModelConfig if first is None else first.family


def part_kind(part: str, family: type) -> Kind:
    """The network that a part of a model of a family is; "transformer" is that of the family."""
    part = family.transformer_part if part == "transformer" else part
    return next(kind for kind in KINDS.values() if kind.family is family and kind.part == part)


def check_part(part: str, label: str, names: Mapping[str, Any], family: type = ModelConfig) -> None:
    """Check that weights are of the network for which they were given.

    Raises:
      ConfigError: they are not; the message names the network that they look like, and its option.
    """
    needed, found = part_kind(part, family), identify(names)
    option, looks = OPTIONS[needed.part], f"{OPTIONS[needed.part]}: {label} looks like"
    if found == "":
        raise ConfigError(f"{option}: {label} holds nothing known; needed is {needed.title}")
    if found not in KINDS:
        raise ConfigError(f"{looks} {found}; needed is {needed.title}")
    if KINDS[found] is needed:
        return
    if KINDS[found].family is not family:
        raise ConfigError(
            f"{looks} {KINDS[found].title}, which belongs to another family of models than the others; needed is "
            f"{needed.title}"
        )
    raise ConfigError(f"{looks} {KINDS[found].title}, not {needed.title}; give it as {OPTIONS[KINDS[found].part]}")


def model_config(base: AnyModelConfig | None, kept: set[str], new: Mapping[str, Any]) -> AnyModelConfig:
    """The config of a model with the parts `new` and the parts `kept` of the model `base`.

    The config of a part that the model does not have yet is adapted to the others, so that it can be added later.

    Raises:
      ConfigError: the sizes of the parts do not fit together.
    """
    try:
        if isinstance(base, WanModelConfig) or "wan" in new or isinstance(new.get("vae"), WanVAEConfig):
            return _wan_model(base if isinstance(base, WanModelConfig) else None, kept, new)
        return _open_sora_model(base or OPEN_SORA_1_2, kept, new)
    except ConfigError as error:
        raise ConfigError(f"these parts do not fit together: {error}") from None


def _open_sora_model(base: ModelConfig, kept: set[str], new: Mapping[str, Any]) -> ModelConfig:
    parts: dict[str, Any] = {part: getattr(base, part) for part in ("stdit3", "vae", "t5")} | dict(new)
    stdit3, vae, t5 = parts["stdit3"], parts["vae"], parts["t5"]
    held = kept | set(new)
    if "stdit3" not in held:
        channels = vae.latent_channels if "vae" in held else stdit3.latent_channels
        caption = t5.d_model if "t5" in held else stdit3.caption_channels
        stdit3 = dataclasses.replace(stdit3, latent_channels=channels, caption_channels=caption)
    if "vae" not in held:
        same = {"latent_channels": stdit3.latent_channels}
        vae = dataclasses.replace(
            vae, spatial=dataclasses.replace(vae.spatial, **same), temporal=dataclasses.replace(vae.temporal, **same)
        )
    if "t5" not in held:
        t5 = dataclasses.replace(t5, d_model=stdit3.caption_channels)
    text = dataclasses.replace(base.text, max_tokens=stdit3.max_caption_tokens)
    return dataclasses.replace(base, stdit3=stdit3, vae=vae, t5=t5, text=text)


def _wan_model(base: WanModelConfig | None, kept: set[str], new: Mapping[str, Any]) -> WanModelConfig:
    there = {} if base is None else {part: getattr(base, part) for part in kept}
    if base is None or base.name == UNKNOWN or base.wan != new.get("wan", base.wan):
        # A published model's defaults, if its transformer is known.
        models = (model for model in PUBLISHED.values() if isinstance(model, WanModelConfig))
        known = (model for model in models if model.wan == new.get("wan"))
        base = next(known, base or dataclasses.replace(SKYREELS_V2_DF_1_3B_MODEL, name=UNKNOWN))
    parts: dict[str, Any] = {part: getattr(base, part) for part in ("wan", "vae", "t5")} | there | dict(new)
    wan, vae, t5 = parts["wan"], parts["vae"], parts["t5"]
    held = kept | set(new)
    if "wan" not in held:
        wan = dataclasses.replace(
            wan,
            latent_channels=vae.latent_channels if "vae" in held else wan.latent_channels,
            caption_channels=t5.d_model if "t5" in held else wan.caption_channels,
        )
    if "t5" not in held:
        t5 = dataclasses.replace(t5, d_model=wan.caption_channels)
    text = dataclasses.replace(base.text, max_tokens=wan.max_caption_tokens)
    return dataclasses.replace(base, wan=wan, vae=vae, t5=t5, text=text)
