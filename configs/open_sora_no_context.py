"""The paper's ablation 1 of Open-Sora 1.2 XL/2: a window without context, the noisy chunks see nothing that is
finished.

    bash launch/multi_gpu.sh --config configs/open_sora_no_context.py --data.manifest clips.csv
    pavdm "a cat" --checkpoint runs/open_sora_no_context

All else, the hardware too, as in `configs/gpu_h100x8.py`. Never run: no duration or quality is known.
"""

from dataclasses import replace

from pavdm_jax.config import OPEN_SORA_1_2, SCHEDULES
from pavdm_jax.training.presets import open_sora_finetune

model = replace(OPEN_SORA_1_2, window=SCHEDULES["no-context"])
config = open_sora_finetune("runs/open_sora_no_context", 32, "fsdp=8", model=model)
