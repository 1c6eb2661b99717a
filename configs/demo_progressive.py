"""The embedded model: the progressive finetune of the demo base, many growing windows among full and shrinking
ones: while the window grows without a context, the prompt alone decides what will be seen.

    python -m pavdm_jax.train --config configs/demo_progressive.py        (after configs/demo_base.py)

Hardware: two CPU cores. Duration and result: see `pavdm_jax/assets/demo/README.md`.
"""

from pavdm_jax.config import demo
from pavdm_jax.training.config import OptimizerConfig, ProgressiveDiffusion, ShapesData, Stage, TrainConfig

config = TrainConfig(
    model=demo(),
    init_from="runs/demo_base",
    output="runs/demo_progressive",
    stages=(
        Stage(
            "progressive",
            ProgressiveDiffusion(growing=0.4, shrinking=0.1, short=0.0),
            ShapesData(frames=17 * 8, samples=1600, seed=2),
            train=("stdit3", "t5"),
            steps=3550,
            batch_size=8,
            optimizer=OptimizerConfig(5e-4, warmup_steps=50, beta2=0.99, epsilon=1e-8, ema_decay=0.99),
        ),
    ),
    model_dtype="float16",
    save_every=100,
)
