"""The embedded model turned back into a base: one noise level a clip again, as before its progressive finetune.

    pavdm train --config configs/demo_base_again.py
    pavdm train --config demo_rn --steps 250 --data.samples 600        (or another of the systems' configs)

A base for `comparison_shapes.py`, in an hour and a half by the speed of its steps, where `demo_base` takes hours; it
takes that one's place. After what captions mean come clips of three chunks, the length at which the baselines are
sampled, with Open-Sora's mask strategies, on some of the scenes of the systems' finetunes. Its weights have seen
progressive windows before, which those of a base from nothing have not: what is sampled progressively from it may gain
by that.

Its first stage is also how the embedded model learns more of captions: a `demo_progressive` that starts from its end,
`--init-from runs/demo_base/results/0-scenes`, is a new embedded model.

Hardware: two CPU cores. Duration and result: see `pavdm_jax/assets/demo/README.md` and `configs/results/README.md`.
"""

from dataclasses import replace

from pavdm_jax.training.config import ShapesData, UniformDiffusion
from pavdm_jax.training.presets import DEMO_SCENES, DEMO_WORLD, demo_system

config = demo_system("runs/demo_base", UniformDiffusion(clip_chunks=3), batch_size=16)
clips = replace(
    config.stages[0], name="clips", data=ShapesData(17 * 8, samples=600, seed=2, world=DEMO_WORLD), steps=500
)
config = replace(config, init_from="demo", stages=(DEMO_SCENES, clips))
