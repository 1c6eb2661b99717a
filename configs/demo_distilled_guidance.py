"""The embedded model without guidance: one pass of the network a step instead of two, and two steps a shift, not five.

    pavdm train --config configs/demo_distilled_guidance.py
    pavdm "a red circle moves left" --checkpoint runs/demo_distilled_guidance

Hardware: two CPU cores; half an hour, and twelve minutes before it for the latents of the scenes. The result, LoRA
adapters, is the embedded model demo-distilled, see `pavdm_jax/assets/demo/README.md`.
"""

from dataclasses import replace

from pavdm_jax.config import demo
from pavdm_jax.training.config import DistilledGuidance
from pavdm_jax.training.presets import demo_distilled

base = demo()
window = replace(base.window, steps=2 * base.window.noisy_chunks)
config = demo_distilled(
    "runs/demo_distilled_guidance",
    DistilledGuidance(growing=0.4, shrinking=0.1, guidance_scale=base.guidance_scale),
    init_from="demo",
    model=replace(base, name="demo-distilled", guidance_scale=1.0, window=window),
    steps=1100,
)
