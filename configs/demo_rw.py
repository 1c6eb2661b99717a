"""The RW baseline (replacement with noise) at the demo's size.

All frames of a clip always share one level, no frame is kept clean.

    pavdm train --config configs/demo_rw.py        (after configs/demo_base.py)

Trained at the length of the clips that it is sampled at: three chunks, 51 frames. The paper gives its RW three times
the finetuning steps of its progressive model; here they are as many as in `configs/demo_progressive.py`, with twice as
many clips a step.

Hardware: two CPU cores. Never run to the end: no quality is known.
"""

from pavdm_jax.config import demo
from pavdm_jax.training.config import OptimizerConfig, ShapesData, Stage, TrainConfig, UniformDiffusion

config = TrainConfig(
    model=demo(),
    init_from="runs/demo_base",
    output="runs/demo_rw",
    stages=(
        Stage(
            "replacement",
            UniformDiffusion(clip_chunks=3, masks=None),
            ShapesData(frames=17 * 8, samples=1600, seed=2),
            train=("stdit3", "t5"),
            steps=3550,
            batch_size=16,
            optimizer=OptimizerConfig(5e-4, warmup_steps=50, beta2=0.99, epsilon=1e-8, ema_decay=0.99),
        ),
    ),
    model_dtype="float16",
    save_every=100,
)
