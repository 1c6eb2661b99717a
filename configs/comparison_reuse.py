"""The embedded model whose nearly finished latent frames are predicted once a shift.

    pavdm evaluate make configs/comparison_reuse.py --output reuse/ --prompts 6
    pavdm evaluate score reuse/ --world simple --output scores.json --report report.html

A shift has five steps. Latent frames at or below `reuse-LEVEL` are predicted in the first of them alone: of the seven
chunks of the window, the other four steps predict the last six, five, four and three in place of all seven.
"""

from pavdm_jax.data.shapes_world import SIMPLE
from pavdm_jax.evaluation.comparison import Comparison, System
from pavdm_jax.evaluation.held_out import held_out_prompts

comparison = Comparison(
    systems=(
        System("every-step"),
        *(System(f"reuse-{level}", options={"reuse_below": level}) for level in (0.0, 0.3, 0.5, 0.7)),
    ),
    prompts=tuple(held_out_prompts(20, seed=1000, canvas=64, world=SIMPLE)),
    frames=480,
)
