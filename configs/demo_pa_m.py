"""The paper's M setting at the demo's size: 50 steps, a window of 55 latent frames, 16 frames to 5 latent ones.

    pavdm train --config configs/demo_pa_m.py        (after configs/demo_base.py)
    pavdm "a red circle moves left" --checkpoint runs/demo_pa_m

The demo's VAE codes 16 frames at once here, not the 17 that it was trained with: the first of its 5 latent frames is
padding alone. All else as in `configs/demo_progressive.py`. Hardware: two CPU cores. Never run to the end: no quality
is known.
"""

from dataclasses import replace

from pavdm_jax.config import SCHEDULES, demo
from pavdm_jax.training.presets import demo_system

base = demo()
vae = replace(base.vae, micro_frames=16, micro_latents=5)
config = demo_system("runs/demo_pa_m", frames=16 * 11, model=replace(base, window=SCHEDULES["pa-m"], vae=vae))
