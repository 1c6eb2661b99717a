"""The paper's ablation 1 at the demo's size: a window without context, the noisy chunks see nothing that is finished.

    pavdm train --config configs/demo_no_context.py        (after configs/demo_uniform.py)
    pavdm "a red circle moves left" --checkpoint runs/demo_no_context

All else as in `configs/demo_pa.py`. Hardware: two CPU cores. Run: `configs/results/README.md`.
"""

from dataclasses import replace

from pavdm_jax.config import SCHEDULES, demo
from pavdm_jax.training.presets import demo_compared

config = demo_compared("runs/demo_no_context", model=replace(demo(), window=SCHEDULES["no-context"]))
