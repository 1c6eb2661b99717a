"""The RN baseline (replacement without noise), finetuned, of Open-Sora 1.2 XL/2.

Three of four clips continue another one: their first 17 frames are clean. The others begin from the prompt alone.

    bash launch/multi_gpu.sh --config configs/open_sora_rn.py --data.manifest clips.csv
    pavdm "a cat" --checkpoint runs/open_sora_rn --method replacement

Trained at the lengths that it is sampled at: clips of three chunks, 51 frames, of which 17 are context. The paper's RN
is not finetuned (RN-O-base): `pavdm "a cat" --checkpoint checkpoints/open-sora-1.2 --method replacement`.

Hardware: 8 GPUs of 80 GB, as `configs/gpu_h100x8.py`; --mesh and --batch-size for others. Never run: no duration or
quality is known.
"""

from dataclasses import replace

from pavdm_jax.training.config import SampleConfig, UniformDiffusion, masks_of
from pavdm_jax.training.presets import open_sora_finetune

objective = UniformDiffusion(clip_chunks=3, masks=masks_of(context=0.75))
config = open_sora_finetune("runs/open_sora_rn", 32, "fsdp=8", objective=objective)
config = replace(config, samples=SampleConfig(method="replacement"))
