"""The families of networks that a model can be of.

Their configs have the same fields where they mean the same: `name`, `transformer`, `vae`, `t5`, `text`, `window`,
`height`, `width`, `fps`, `guidance_scale`, `negative_prompt`. What a family computes otherwise is in
`models/networks.py` (how its networks are called) and `diffusion/family_levels.py` (its noise levels and solver).
"""

from pavdm_jax.config import OPEN_SORA_1_2, ModelConfig, STDiT3Config, VAEConfig
from pavdm_jax.wan_config import (
    SKYREELS_V2_DF_1_3B_MODEL,
    SKYREELS_V2_DF_14B_720P_MODEL,
    SKYREELS_V2_DF_14B_MODEL,
    WanConfig,
    WanModelConfig,
    WanVAEConfig,
)

AnyModelConfig = ModelConfig | WanModelConfig
AnyTransformerConfig = STDiT3Config | WanConfig
AnyVAEConfig = VAEConfig | WanVAEConfig

PUBLISHED: dict[str, AnyModelConfig] = {
    config.name: config
    for config in (
        OPEN_SORA_1_2,
        SKYREELS_V2_DF_1_3B_MODEL,
        SKYREELS_V2_DF_14B_MODEL,
        SKYREELS_V2_DF_14B_720P_MODEL,
    )
}
"""The published models by name."""

TRANSFORMER_PARTS = tuple(kind.transformer_part for kind in (ModelConfig, WanModelConfig))
"""The names of the transformers among the parts of a model."""


def networks_of(model: AnyModelConfig) -> tuple:
    """The configs of a model's networks; how many frames its VAE codes at once is none of them."""
    vae = (model.vae.spatial, model.vae.temporal) if isinstance(model, ModelConfig) else model.vae
    return model.transformer, vae, model.t5
