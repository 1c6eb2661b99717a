"""The paper's RW baseline (replacement with noise) of Open-Sora 1.2 XL/2.

All frames of a clip always share one level, none is kept clean.

    bash launch/multi_gpu.sh --config configs/open_sora_rw.py --data.manifest clips.csv

Trained at the length of the clips that it is sampled at: three chunks, 51 frames. Three times the steps of the
progressive finetune, as in the paper.

Hardware: 8 GPUs of 80 GB, as `configs/gpu_h100x8.py`; --mesh and --batch-size for others. Never run: no duration or
quality is known.
"""

from dataclasses import replace

from pavdm_jax.training.config import SampleConfig, UniformDiffusion
from pavdm_jax.training.presets import open_sora_finetune

objective = UniformDiffusion(clip_chunks=3, masks=None)
config = open_sora_finetune("runs/open_sora_rw", 32, "fsdp=8", objective=objective, steps=30_000)
config = replace(config, samples=SampleConfig(method="noisy-replacement"))
