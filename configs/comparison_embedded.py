"""The embedded model sampled by every method: repeatable without any training, a minute a video, from text alone.

    pavdm evaluate make configs/comparison_embedded.py --output comparison-embedded/ --prompts 6
    pavdm evaluate score comparison-embedded/ --world simple --output scores.json --report report.html

This is not the paper's comparison, which trains weights for every method (`comparison_shapes.py`). One set of weights
makes all videos here, and it was finetuned progressively, with context and chunks: `progressive` is what it was trained
for, and all others are sampled outside of its training. Every latent frame of every system is updated 30 times.
"""

from pavdm_jax.data.shapes_world import SIMPLE
from pavdm_jax.evaluation.comparison import Comparison, System
from pavdm_jax.evaluation.held_out import held_out_prompts

REPLACE = {"method": "replacement"}

comparison = Comparison(
    systems=(
        System("progressive"),
        System("replacement", options=REPLACE),
        System("replacement-latents", options=REPLACE | {"keep_latents": True}),
        System("noisy-replacement", options={"method": "noisy-replacement"}),
        System("one-frame", options=REPLACE | {"context_frames": 1}),
        System("no-context", options={"schedule": "no-context"}),
        System("fifo", options={"schedule": "fifo"}),
        System("no-chunks", options={"schedule": "no-chunks"}),
        System("context-noise", options={"context_noise": 0.02}),
    ),
    prompts=tuple(held_out_prompts(20, seed=1000, canvas=64, world=SIMPLE)),
    frames=1440,
)
