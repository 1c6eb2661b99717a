"""The embedded model turned back into a base: one noise level a clip again, as before its progressive finetune.

    pavdm train --config demo_base_again
    pavdm train --config demo_rn --init-from runs/demo_base_again        (or another of the systems' configs)

A base for `comparison_shapes.py` in minutes, where `demo_base` takes hours. Trained on clips of three chunks, the
length at which the baselines are sampled, with Open-Sora's mask strategies, on the scenes of the systems' finetunes.
Its weights have seen progressive windows before, which a base from nothing has not: what is sampled from it without a
finetune of its own may gain by that.

Hardware: two CPU cores. Duration and result: see `configs/results/README.md`.
"""

from dataclasses import replace

from pavdm_jax.training.config import UniformDiffusion
from pavdm_jax.training.presets import demo_system

config = replace(demo_system("runs/demo_base", UniformDiffusion(clip_chunks=3), batch_size=16), init_from="demo")
