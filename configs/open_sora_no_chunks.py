"""The paper's ablation 2 of Open-Sora 1.2 XL/2: no chunks, every latent frame has a level of its own, and no
context.

    bash launch/multi_gpu.sh --config configs/open_sora_no_chunks.py --data.manifest clips.csv
    pavdm "a cat" --checkpoint runs/open_sora_no_chunks

All else, the hardware too, as in `configs/gpu_h100x8.py`. Never run: no duration or quality is known.
"""

from dataclasses import replace

from pavdm_jax.config import OPEN_SORA_1_2, SCHEDULES
from pavdm_jax.training.presets import open_sora_finetune

model = replace(OPEN_SORA_1_2, window=SCHEDULES["no-chunks"])
config = open_sora_finetune("runs/open_sora_no_chunks", 32, "fsdp=8", model=model)
