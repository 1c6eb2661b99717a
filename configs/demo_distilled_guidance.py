"""The embedded model without guidance: one pass of the network a step instead of two, at the same guidance scale.

    pavdm train --config configs/demo_distilled_guidance.py
    pavdm "a red circle moves left" --checkpoint runs/demo_distilled_guidance

Hardware: two CPU cores; 5 minutes after the latents of the scenes are there. The result is the embedded model
demo-distilled, see `pavdm_jax/assets/demo/README.md`.
"""

from dataclasses import replace

from pavdm_jax.config import demo
from pavdm_jax.training.config import DistilledGuidance
from pavdm_jax.training.presets import demo_distilled

config = demo_distilled(
    "runs/demo_distilled_guidance",
    DistilledGuidance(growing=0.4, shrinking=0.1, guidance_scale=demo().guidance_scale),
    init_from="demo",
    model=replace(demo(), guidance_scale=1.0),
    steps=300,
)
