"""The paper's ablation 2 at the demo's size: no chunks, every latent frame has a level of its own, and no context.

    pavdm train --config configs/demo_no_chunks.py        (after configs/demo_base.py)
    pavdm "a red circle moves left" --checkpoint runs/demo_no_chunks

All else as in `configs/demo_progressive.py`. Hardware: two CPU cores. Run for 250 of its steps, see
`configs/results/README.md`.
"""

from dataclasses import replace

from pavdm_jax.config import SCHEDULES, demo
from pavdm_jax.training.presets import demo_system

config = demo_system("runs/demo_no_chunks", model=replace(demo(), window=SCHEDULES["no-chunks"]))
