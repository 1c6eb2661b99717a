"""The embedded model's transformer and text encoder, from random weights on the latents of the demo VAE.

    python -m pavdm_jax.train --config configs/demo_base.py        (after configs/demo_vae.py)

Hardware: two CPU cores. Duration and result: see `pavdm_jax/assets/demo/README.md`. One noise level a clip: first clips
of two chunks with Open-Sora's mask strategies, for how things move, then of one, for what captions mean. The finetunes
bring the long windows.
"""

from dataclasses import replace

from pavdm_jax.training.config import UniformDiffusion
from pavdm_jax.training.presets import DEMO_SCENES, demo_system

config = demo_system("runs/demo_base", UniformDiffusion(clip_chunks=2), batch_size=16)
motion = replace(config.stages[0], name="motion", steps=2500)
config = replace(config, init_from="runs/demo_vae", stages=(motion, replace(DEMO_SCENES, steps=8000)))
