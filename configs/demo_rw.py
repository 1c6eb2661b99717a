"""The RW baseline (replacement with noise) at the demo's size.

All frames of a clip always share one level, no frame is kept clean.

    pavdm train --config configs/demo_rw.py        (after configs/demo_uniform.py)
    pavdm "a red circle moves left" --checkpoint runs/demo_rw --method noisy-replacement

Trained at the length of the clips that it is sampled at: three chunks, 51 frames. The paper gives its RW three times
the finetuning steps of its progressive model; here they are as many as in `configs/demo_pa.py`, with twice as
many clips a step.

Hardware: two CPU cores. Run: `configs/results/README.md`.
"""

from dataclasses import replace

from pavdm_jax.training.config import SampleConfig, UniformDiffusion
from pavdm_jax.training.presets import demo_compared

config = demo_compared("runs/demo_rw", UniformDiffusion(clip_chunks=3, masks=None), batch_size=16)
config = replace(config, samples=SampleConfig(method="noisy-replacement"))
