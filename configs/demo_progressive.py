"""The embedded model: the progressive finetune of the demo base, many growing windows among full and shrinking
ones: while the window grows without a context, the prompt alone decides what will be seen.

    python -m pavdm_jax.train --config configs/demo_progressive.py        (after configs/demo_base.py)

Hardware: two CPU cores. Duration and result: see `pavdm_jax/assets/demo/README.md`.
"""

from pavdm_jax.training.presets import demo_system

config = demo_system("runs/demo_progressive")
