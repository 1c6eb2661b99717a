"""The paper's progressive finetune of Open-Sora 1.2 XL/2 on a TPU v5p-128: 240p, clips of 119 frames (35 latent frames).

    bash launch/tpu_pod.sh --config configs/tpu_v5p.py --data.manifest clips.csv --output runs/tpu_v5p        (on every host)

Hardware: 64 chips of 95 GB, 4x4x4; two clips a chip.
Measured: the step is compiled for the topology, without chips, and fits (README):

    python -m pavdm_jax.train --config configs/tpu_v5p.py --compile-only v5p:4x4x4

Never run: no duration or quality is known. The paper's settings, as in `configs/tpu_v4.py`.
"""

from pavdm_jax.config import ModelConfig
from pavdm_jax.training.config import OptimizerConfig, ProgressiveDiffusion, Stage, TrainConfig, VideoData

config = TrainConfig(
    model=ModelConfig(),
    init_from="checkpoints/open-sora-1.2",
    output="runs/tpu_v5p",
    stages=(
        Stage(
            "progressive",
            ProgressiveDiffusion(),
            VideoData("clips.csv", frames=119),
            train=("stdit3",),
            freeze=("stdit3/caption_in", "stdit3/caption_out", "stdit3/null_caption"),
            steps=10_000,
            batch_size=128,
            optimizer=OptimizerConfig(1e-4, warmup_steps=1000, decay=False),
        ),
    ),
    compute_dtype="bfloat16",
    remat="attention",
    mesh="data=4,fsdp=16",
)
