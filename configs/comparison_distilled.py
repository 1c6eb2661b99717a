"""The embedded model and what was distilled from it, by steps a shift: quality and time of fewer network calls.

    pavdm train --config demo_distilled          # after demo_distilled_guidance; without it, its system is left out
    pavdm evaluate make configs/comparison_distilled.py --output distilled/ --prompts 4
    pavdm evaluate score distilled/ --world simple --output scores.json --report report.html

`distilled-guidance` is the embedded model demo-distilled. Names end in the steps of a shift. A step of the embedded
model is two passes of the network, as it is guided; a step of the distilled models is one. So passes a shift are 10, 4,
2 of `guided`, 5, 2, 1 of `distilled-guidance`, and 1 of `distilled-shift`.
"""

from pavdm_jax.config import demo
from pavdm_jax.data.shapes_world import SIMPLE
from pavdm_jax.evaluation.comparison import Comparison, System
from pavdm_jax.evaluation.held_out import held_out_prompts

CHUNKS = demo().window.noisy_chunks


def system(name: str, checkpoint: str, steps_of_a_shift: int) -> System:
    """A system with so many steps a shift."""
    return System(f"{name}-{steps_of_a_shift}", checkpoint, options={"steps": steps_of_a_shift * CHUNKS})


comparison = Comparison(
    systems=(
        *(system("guided", "demo", steps) for steps in (5, 2, 1)),
        *(system("distilled-guidance", "demo-distilled", steps) for steps in (5, 2, 1)),
        system("distilled-shift", "runs/demo_distilled", 1),
    ),
    prompts=tuple(held_out_prompts(20, seed=1000, canvas=64, world=SIMPLE)),
    frames=480,
)
