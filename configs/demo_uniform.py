"""The embedded model turned back into a base, of which the systems of `comparison_shapes.py` are finetunes.

    pavdm train --config configs/demo_uniform.py
    pavdm train --config demo_rn                (or another of the systems' configs)

One noise level a clip again, as before its progressive finetune: clips of three chunks, the length at which the
baselines are sampled, with Open-Sora's mask strategies. It knows what captions mean, which takes a base from nothing
hours (`demo_base`); its weights have seen progressive windows before, which those of such a base have not: what is
sampled progressively from it may gain by that. LoRA adapters, of some 1.5 MB.

Hardware: two CPU cores. Run: `configs/results/README.md`.
"""

from pavdm_jax.training.config import UniformDiffusion
from pavdm_jax.training.presets import demo_compared

config = demo_compared("runs/demo_uniform", UniformDiffusion(clip_chunks=3), batch_size=16, init_from="demo")
