"""The small STDiT3 whose weights a golden file carries, as the function that `diffusion` is given."""

import jax
import jax.numpy as jnp
from support.pytorch_layout import to_params

from pavdm_jax.config import STDiT3Config
from pavdm_jax.conversion.open_sora import stdit3_rules
from pavdm_jax.models.caption import concatenate
from pavdm_jax.models.stdit3 import STDiT3


def network_config(settings: dict) -> STDiT3Config:
    return STDiT3Config(
        depth=settings["depth"],
        hidden_size=settings["hidden_size"],
        num_heads=settings["num_heads"],
        caption_channels=settings["caption_channels"],
        max_caption_tokens=settings["model_max_length"],
    )


def network_params(config: STDiT3Config, weights: dict) -> dict:
    model = STDiT3(config)
    expected = jax.eval_shape(lambda: model.init(jax.random.key(0), method="init_all"))["params"]
    return to_params(stdit3_rules(config), weights, expected)


def velocity_of(config, params, features, text_mask, size, null_half, dtype=jnp.float32):
    """velocity(latents, levels, num_valid, prompt_index) of a golden file.

    Args:
      features, text_mask: [b, 1, l, c] and [b, l] of the file.
      size: height, width in pixels, and fps.
      null_half: answer for the null caption in a second half of the batch (it keeps the prompts' token counts).
      dtype: in which the network computes; captions are encoded in float32, as in generation.
    """
    model, lengths = STDiT3(config), jnp.sum(jnp.asarray(text_mask, jnp.int32), axis=1, keepdims=True)
    caption = model.apply({"params": params}, jnp.asarray(features), lengths, method="encode_caption")
    if null_half:
        null = model.apply({"params": params}, lengths, method="encode_null_caption")
        caption = concatenate([caption, null])

    network = STDiT3(config, dtype)

    def velocity(latents, levels, num_valid, prompt_index):
        batch, channels = latents.shape[0], latents.shape[-1]
        height, width, fps = (jnp.full((batch,), value, jnp.float32) for value in size)
        num_valid = jnp.broadcast_to(num_valid, (batch,))
        out = network.apply({"params": params}, latents, levels, caption, fps, height, width, num_valid)
        return out[..., :channels]

    return velocity
