"""The paper's progressive finetune of Open-Sora 1.2 XL/2 on one host with 8 H100: 240p, clips of 119 frames (35 latent frames).

    bash launch/multi_gpu.sh --config configs/gpu_h100x8.py --data.manifest clips.csv --optimizer.learning-rate 5e-5

Hardware: 8 GPUs of 80 GB; on several such hosts `launch/slurm.sh`, with --mesh data=HOSTS,fsdp=8 and a larger --batch-size.
Measured: the step is compiled for 8 H100, without any, and takes half of what JAX uses of their memory (README); a batch of 64 fits, too:

    python -m pavdm_jax.train --config configs/gpu_h100x8.py --compile-only h100:8

Never run: no duration or quality is known. The paper's settings, as in `configs/tpu_v4.py`.
"""

from pavdm_jax.config import ModelConfig
from pavdm_jax.training.config import OptimizerConfig, ProgressiveDiffusion, Stage, TrainConfig, VideoData

config = TrainConfig(
    model=ModelConfig(),
    init_from="checkpoints/open-sora-1.2",
    output="runs/gpu_h100x8",
    stages=(
        Stage(
            "progressive",
            ProgressiveDiffusion(),
            VideoData("clips.csv", frames=119),
            train=("stdit3",),
            freeze=("stdit3/caption_in", "stdit3/caption_out", "stdit3/null_caption"),
            steps=10_000,
            batch_size=32,
            optimizer=OptimizerConfig(1e-4, warmup_steps=1000, decay=False),
        ),
    ),
    compute_dtype="bfloat16",
    remat="attention",
    mesh="fsdp=8",
)
