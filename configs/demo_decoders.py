"""The decoders of the embedded model's VAE once more: frames become sharper, and latents stay what they are.

    pavdm train --config configs/demo_decoders.py

Its result replaces the embedded `vae` alone: transformers, and adapters of them, know latents only.

Hardware: two CPU cores. Duration and result: see `pavdm_jax/assets/demo/README.md`.
"""

from pavdm_jax.config import demo
from pavdm_jax.training.config import TrainConfig
from pavdm_jax.training.presets import DEMO_DECODERS

config = TrainConfig(
    model=demo(),
    init_from="demo",
    output="runs/demo_decoders",
    stages=(DEMO_DECODERS,),
    model_dtype="float16",
    save_every=300,
)
