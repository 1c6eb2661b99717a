"""The RN baseline (replacement without noise), finetuned, at the demo's size.

Three of four clips continue another one: their first 17 frames are clean. The others begin from the prompt alone, as
the first clip of a video does.

    pavdm train --config configs/demo_rn.py        (after configs/demo_uniform.py)
    pavdm "a red circle moves left" --checkpoint runs/demo_rn --method replacement

Trained at the lengths that it is sampled at: clips of three chunks, 51 frames, of which 17 are context. The paper's RN
is not finetuned (RN-O-base); this one shares steps and optimiser with `configs/demo_pa.py`, with twice as many clips a
step.

Hardware: two CPU cores. Run: `configs/results/README.md`.
"""

from dataclasses import replace

from pavdm_jax.training.config import SampleConfig, UniformDiffusion, masks_of
from pavdm_jax.training.presets import demo_compared

config = demo_compared("runs/demo_rn", UniformDiffusion(clip_chunks=3, masks=masks_of(context=0.75)), batch_size=16)
config = replace(config, samples=SampleConfig(method="replacement"))
