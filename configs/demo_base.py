"""The embedded model's transformer and text encoder, from random weights on the latents of the demo VAE.

    python -m pavdm_jax.train --config configs/demo_base.py        (after configs/demo_vae.py)

Hardware: two CPU cores. Duration and result: see `pavdm_jax/assets/demo/README.md`.
One noise level a clip, with Open-Sora's mask strategies. Clips are two chunks, cut from scenes of eight: short ones show
more scenes in the same time, and the progressive stage, which reads the same latents, brings the long windows.
"""

from pavdm_jax.config import demo
from pavdm_jax.train_config import OptimizerConfig, ShapesData, Stage, TrainConfig, UniformDiffusion

config = TrainConfig(
    model=demo(),
    init_from="runs/demo_vae",
    output="runs/demo_base",
    stages=(
        Stage(
            "base",
            UniformDiffusion(clip_chunks=2),
            ShapesData(frames=17 * 8, samples=1600, seed=2),
            train=("stdit3", "t5"),
            steps=2500,
            batch_size=16,
            optimizer=OptimizerConfig(1e-3, warmup_steps=100, beta2=0.99, epsilon=1e-8, ema_decay=0.995),
        ),
    ),
    save_every=200,
)
