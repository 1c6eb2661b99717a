"""The paper's progressive finetune of Open-Sora 1.2 XL/2 on a TPU v5e-64: 240p, clips of 119 frames (35 latent frames).

    bash launch/tpu_pod.sh --config configs/tpu_v5e.py --data.manifest clips.csv --output runs/tpu_v5e        (on every host)

Hardware: 64 chips of 16 GB, 8x8.
Measured: the step is compiled for the topology, without chips, and fits (README):

    python -m pavdm_jax.train --config configs/tpu_v5e.py --compile-only v5e:8x8

Never run: no duration or quality is known. The paper's settings, as in `configs/tpu_v4.py`.
"""

from pavdm_jax.config import ModelConfig
from pavdm_jax.training.config import OptimizerConfig, ProgressiveDiffusion, Stage, TrainConfig, VideoData

config = TrainConfig(
    model=ModelConfig(),
    init_from="checkpoints/open-sora-1.2",
    output="runs/tpu_v5e",
    stages=(
        Stage(
            "progressive",
            ProgressiveDiffusion(),
            VideoData("clips.csv", frames=119),
            train=("stdit3",),
            freeze=("stdit3/caption_in", "stdit3/caption_out", "stdit3/null_caption"),
            steps=10_000,
            batch_size=64,
            optimizer=OptimizerConfig(1e-4, warmup_steps=1000, decay=False),
        ),
    ),
    compute_dtype="bfloat16",
    remat="full",
    mesh="data=4,fsdp=16",
)
