"""The embedded model with guidance of other scales, and with none for latent frames below a noise level.

    pavdm evaluate make configs/comparison_guidance.py --output guidance/ --prompts 6
    pavdm evaluate score guidance/ --world simple --output scores.json --report report.html

`above-LEVEL` leaves out the second pass of the network for latent frames at or below the level. Of the seven chunks of
the window, it then sees the last five, four and three in place of all seven.
"""

from pavdm_jax.data.shapes_world import SIMPLE
from pavdm_jax.evaluation.comparison import Comparison, System
from pavdm_jax.evaluation.held_out import held_out_prompts


def by_options(name: str, **options: float) -> System:
    """The embedded model, sampled with these options."""
    return System(name, options=options)


comparison = Comparison(
    systems=(
        by_options("scale-3"),
        by_options("scale-6", guidance_scale=6.0),
        by_options("scale-4", guidance_scale=4.0),
        by_options("scale-1", guidance_scale=1.0),
        by_options("above-0.3", guidance_above=0.3),
        by_options("above-0.6", guidance_above=0.6),
        by_options("above-0.7", guidance_above=0.7),
    ),
    prompts=tuple(held_out_prompts(20, seed=1000, canvas=64, world=SIMPLE)),
    frames=480,
)
