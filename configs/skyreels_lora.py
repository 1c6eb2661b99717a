"""The progressive finetune of SkyReels-V2-DF-1.3B as LoRA adapters of the attention, on 8 GPUs of 80 GB: 544x960.

    bash launch/multi_gpu.sh --config configs/skyreels_lora.py --data.manifest clips.csv
    pavdm "a cat" --checkpoint checkpoints/skyreels-v2-df-1.3b --lora runs/skyreels_lora --seconds 60

As `configs/skyreels_progressive.py`, but the weights stay as they are. Measured: the step is compiled, without GPUs,
and fits (configs/README.md). Never run: no duration or quality is known.
"""

from pavdm_jax.training.config import LoRAConfig
from pavdm_jax.training.presets import skyreels_finetune

layers = ("query", "key", "value", "attention_out", "cross_query", "cross_out")
config = skyreels_finetune("runs/skyreels_lora", 8, "fsdp=8", lora=LoRAConfig(rank=32, layers=layers))
