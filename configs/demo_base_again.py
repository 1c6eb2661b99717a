"""The embedded model turned back into a base: one noise level a clip again, as before its progressive finetune.

    pavdm train --config configs/demo_base_again.py
    pavdm train --config demo_rn --steps 250 --data.samples 600        (or another of the systems' configs)

A base for `comparison_shapes.py` in minutes, where `demo_base` takes hours; it takes that one's place. Trained on clips
of three chunks, the length at which the baselines are sampled, with Open-Sora's mask strategies, on some of the scenes
of the systems' finetunes. Its weights have seen progressive windows before, which those of a base from nothing have
not: what is sampled progressively from it may gain by that.

Hardware: two CPU cores. Duration and result: see `configs/results/README.md`.
"""

from dataclasses import replace

from pavdm_jax.training.config import ShapesData, UniformDiffusion
from pavdm_jax.training.presets import demo_system

config = demo_system("runs/demo_base", UniformDiffusion(clip_chunks=3), batch_size=16)
stage = replace(config.stages[0], data=ShapesData(17 * 8, samples=600, seed=2), steps=500)
config = replace(config, init_from="demo", stages=(stage,))
