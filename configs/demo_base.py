"""The embedded model's transformer and text encoder, from random weights on the latents of the demo VAE.

    python -m pavdm_jax.train --config configs/demo_base.py        (after configs/demo_vae.py)

Hardware: two CPU cores. Duration and result: see `pavdm_jax/assets/demo/README.md`. One noise level a clip, with
Open-Sora's mask strategies. The shorter the clips, the more scenes are seen in the same time, and what a caption
means is learnt from scenes: first clips of two chunks, then of one. For the same reason it has half of the blocks. The
finetunes bring the long windows, and the other half.
"""

from pavdm_jax.training.config import OptimizerConfig, ShapesData, Stage, TrainConfig, UniformDiffusion
from pavdm_jax.training.presets import DEMO_BASE


def stage(name: str, objective: UniformDiffusion, data: ShapesData, steps: int, batch_size: int) -> Stage:
    optimizer = OptimizerConfig(1e-3, warmup_steps=50, beta2=0.99, epsilon=1e-8, ema_decay=0.995)
    return Stage(name, objective, data, ("stdit3", "t5"), steps, batch_size, optimizer)


config = TrainConfig(
    model=DEMO_BASE,
    init_from="runs/demo_vae",
    output="runs/demo_base",
    stages=(
        stage("motion", UniformDiffusion(clip_chunks=2), ShapesData(17 * 8, samples=1600, seed=2), 2500, 16),
        stage("scenes", UniformDiffusion(clip_chunks=1), ShapesData(17, samples=8000, seed=3), 5250, 32),
    ),
    save_every=200,
)
