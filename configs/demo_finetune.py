"""The embedded model on videos of your own: a short progressive finetune, to see on a laptop that everything works.

    pavdm train --config configs/demo_finetune.py --data.manifest clips.csv

`clips.csv` has the columns `path` and `caption`; each video needs at least 119 frames at 24 fps, 5 seconds, and is cut
and resized to 64x64. The embedded model knows the words of the shapes world only: other words are spelled in letters,
so captions should be short.

Hardware: a laptop's processor. Try it with --steps 3; hundreds of steps are needed until a video shows what was learnt.
"""

from pavdm_jax.config import demo
from pavdm_jax.training.config import OptimizerConfig, ProgressiveDiffusion, Stage, TrainConfig, VideoData

config = TrainConfig(
    model=demo(),
    init_from="demo",
    output="runs/demo_finetune",
    stages=(
        Stage(
            "progressive",
            ProgressiveDiffusion(growing=0.4, shrinking=0.1),
            VideoData("clips.csv", frames=119),
            train=("stdit3", "t5"),
            steps=300,
            batch_size=2,
            optimizer=OptimizerConfig(2e-4, warmup_steps=20, beta2=0.99, epsilon=1e-8),
        ),
    ),
    save_every=50,
    log_every=10,
)
