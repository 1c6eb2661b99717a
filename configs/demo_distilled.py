"""One pass of the network a shift, in place of the embedded model's ten: five steps of two passes.

    pavdm train --config configs/demo_distilled.py        (after configs/demo_distilled_guidance.py)
    pavdm "a red circle moves left" --checkpoint runs/demo_distilled

The teacher is the model whose guidance is distilled already. Half of the windows are made by the student's own step.

Hardware: two CPU cores; half an hour, and twelve minutes before it for the latents of the scenes. How it compares with
its teachers is in configs/README.md.
"""

from dataclasses import replace

from pavdm_jax.config import demo
from pavdm_jax.training.config import DistilledShift
from pavdm_jax.training.presets import demo_distilled

base = demo()
window = replace(base.window, steps=base.window.noisy_chunks)
config = demo_distilled(
    "runs/demo_distilled",
    DistilledShift(growing=0.4, shrinking=0.1, steps=base.window.steps, rollout=0.5),
    init_from="runs/demo_distilled_guidance",
    model=replace(base, guidance_scale=1.0, window=window),
    steps=600,
)
