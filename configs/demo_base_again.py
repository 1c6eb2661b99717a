"""More of what captions mean for the embedded model: clips of a chunk at one noise level, as in `demo_base`.

    pavdm train --config configs/demo_base_again.py
    pavdm train --config demo_progressive               (which starts from it)

The two make a new embedded model of the present one.

Hardware: two CPU cores. Duration and result: see `pavdm_jax/assets/demo/README.md`.
"""

from dataclasses import replace

from pavdm_jax.training.presets import DEMO_SCENES, demo_system

config = replace(demo_system("runs/demo_base"), init_from="demo", stages=(DEMO_SCENES,))
