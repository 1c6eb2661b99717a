"""The embedded model's video VAE, from nothing.

    python -m pavdm_jax.train --config configs/demo_vae.py

Hardware: two CPU cores. Duration and result: see `pavdm_jax/assets/demo/README.md`. Three stages, as Open-Sora trained
its own: the spatial VAE on single frames, the temporal VAE on its latents, then both decoders together.
"""

from pavdm_jax.config import demo
from pavdm_jax.training.config import (
    OptimizerConfig,
    ShapesData,
    SpatialReconstruction,
    Stage,
    TemporalReconstruction,
    TrainConfig,
)
from pavdm_jax.training.presets import DEMO_DECODERS


def adamw(learning_rate: float) -> OptimizerConfig:
    return OptimizerConfig(learning_rate, warmup_steps=50, beta2=0.99, epsilon=1e-8, ema_decay=0.99)


config = TrainConfig(
    model=demo(),
    output="runs/demo_vae",
    stages=(
        Stage(
            "spatial",
            SpatialReconstruction(kl_weight=1e-4),
            ShapesData(frames=1),
            ("vae/spatial",),
            1200,
            16,
            adamw(3e-3),
        ),
        Stage(
            "temporal",
            TemporalReconstruction(kl_weight=1e-3),
            ShapesData(frames=17),
            ("vae/temporal",),
            800,
            8,
            adamw(3e-3),
        ),
        DEMO_DECODERS,
    ),
    save_every=100,
)
