"""The embedded model sampled by every method: repeatable without any training, a minute a video, from text alone.

    pavdm evaluate make configs/comparison_embedded.py --output embedded/ --prompts 6
    pavdm evaluate score embedded/ --world simple --claims configs/comparison_embedded.py --report report.html

This is not the paper's comparison, which trains weights for every method (`comparison_shapes.py`). One set of weights
makes all videos here, and it was finetuned progressively, with context and chunks: `progressive` is what it was trained
for, and all others are sampled outside of its training. Every latent frame of every system is updated 30 times.
"""

from pavdm_jax.data.shapes_world import SIMPLE
from pavdm_jax.evaluation.comparison import Comparison, System
from pavdm_jax.evaluation.held_out import held_out_prompts
from pavdm_jax.evaluation.paper_claims import paper_claims

REPLACE = {"method": "replacement"}

NOTE = (
    "All systems are one set of weights, sampled by different methods. The weights were finetuned for progressive "
    "sampling with context and chunks; every other system is sampled outside of that training. A verdict says what "
    "these weights do when they are sampled so. It says nothing of a method whose weights were trained for it, which "
    "is what the paper compares."
)

comparison = Comparison(
    systems=(
        System("progressive"),
        System("replacement", options=REPLACE),
        System("noisy-replacement", options={"method": "noisy-replacement"}),
        System("one-frame", options=REPLACE | {"context_frames": 1}),
        System("no-context", options={"schedule": "no-context"}),
        System("replacement-latents", options=REPLACE | {"keep_latents": True}),
        System("fifo", options={"schedule": "fifo"}),
        System("no-chunks", options={"schedule": "no-chunks"}),
        System("context-noise", options={"context_noise": 0.02}),
    ),
    prompts=tuple(held_out_prompts(20, seed=1000, canvas=64, world=SIMPLE)),
    frames=1440,
    claims=paper_claims(
        "progressive",
        noisy_replacement="noisy-replacement",
        replacement="replacement",
        one_frame="one-frame",
        fifo="fifo",
        no_context="no-context",
        no_chunks="no-chunks",
    ),
    note=NOTE,
)
