"""The paper's ablation 2 at the demo's size: no chunks, every latent frame has a level of its own, and no context.

    pavdm train --config configs/demo_no_chunks.py        (after configs/demo_uniform.py)
    pavdm "a red circle moves left" --checkpoint runs/demo_no_chunks

All else as in `configs/demo_pa.py`. Hardware: two CPU cores. Run: `configs/results/README.md`.
"""

from dataclasses import replace

from pavdm_jax.config import SCHEDULES, demo
from pavdm_jax.training.presets import demo_compared

config = demo_compared("runs/demo_no_chunks", model=replace(demo(), window=SCHEDULES["no-chunks"]))
