"""The paper's finetune for the comparison: levels rise along the window.

    pavdm train --config configs/demo_pa.py        (after configs/demo_uniform.py)
    pavdm "a red circle moves left" --checkpoint runs/demo_pa

As short as the other systems' trainings, and LoRA adapters as they are; `configs/demo_progressive.py` is how the
embedded model was made. Hardware: two CPU cores. Run: `configs/results/README.md`.
"""

from pavdm_jax.training.presets import demo_compared

config = demo_compared("runs/demo_pa")
