"""The paper's comparison on the shapes world: every system, the same held-out prompts and seeds, a minute each.

    pavdm train --config demo_vae           (then demo_base, and the configs of the systems: demo_progressive, demo_rn,
                                             demo_rw, demo_no_context, demo_no_chunks)
    pavdm train --config demo_rw --steps 5700 --output runs/demo_rw_long
    pavdm evaluate make configs/comparison_shapes.py --output comparison/
    pavdm evaluate score comparison/ --world simple --claims configs/comparison_shapes.py --report report.html

A first pass in an evening, whose base is the embedded model, with less training and fewer prompts:

    pavdm train --config demo_base_again
    for system in progressive rn rw no_context no_chunks; do
        pavdm train --config demo_$system --steps 250 --data.samples 600
    done
    pavdm train --config demo_rw --steps 750 --data.samples 600 --output runs/demo_rw_long
    pavdm evaluate make configs/comparison_shapes.py --output comparison/ --prompts 6

Systems whose checkpoint is not there yet are named and left out; the same command makes their videos later. All are
given the same start clips, a chunk of the true scene, as in the paper; those called -text begin with the prompt alone.
All were trained from the same base on the same scenes with as many steps (RW also with three times as many,
as in the paper; RN and RW with twice as many clips a step), and every latent frame of every system is updated STEPS
times. Hardware: two CPU cores. The first pass has been run (`configs/results/README.md`), the whole never to its end.
"""

from typing import Any

from pavdm_jax.data.shapes_world import SIMPLE
from pavdm_jax.evaluation.comparison import Comparison, System
from pavdm_jax.evaluation.held_out import held_out_starts
from pavdm_jax.evaluation.paper_claims import paper_claims

WORLD = SIMPLE  # that the configs demo_* train on, which see several shapes more often
STEPS = 30  # as in the paper; FIFO-Diffusion and the window without chunks need as many, one for each latent frame
START = 17  # frames: a chunk
BASE = "runs/demo_base"
REPLACE: dict[str, Any] = {"method": "replacement"}
KEEP: dict[str, Any] = {"method": "replacement", "keep_latents": True}
NOISY: dict[str, Any] = {"method": "noisy-replacement"}


def system(name: str, checkpoint: str, from_text: bool = False, **options) -> System:
    """A system that updates every latent frame STEPS times."""
    return System(name, checkpoint, options={"steps": STEPS} | options, from_text=from_text)


comparison = Comparison(
    systems=(
        system("pa", "runs/demo_progressive"),
        system("pa-base", BASE),
        system("rn", "runs/demo_rn", **REPLACE),
        system("rn-base", BASE, **REPLACE),
        system("rn-latents", "runs/demo_rn", **KEEP),
        system("rn-latents-base", BASE, **KEEP),
        system("rw", "runs/demo_rw", **NOISY),
        system("rw-long", "runs/demo_rw_long", **NOISY),
        system("rw-base", BASE, **NOISY),
        system("one-frame", BASE, **REPLACE, context_frames=1),
        system("fifo-base", BASE, schedule="fifo"),
        system("no-context", "runs/demo_no_context"),
        system("no-chunks", "runs/demo_no_chunks"),
        system("pa-text", "runs/demo_progressive", from_text=True),
        system("rn-text", "runs/demo_rn", from_text=True, **REPLACE),
        system("rw-text", "runs/demo_rw", from_text=True, **NOISY),
    ),
    prompts=tuple(held_out_starts(20, seed=1000, canvas=64, frames=START, world=WORLD)),
    frames=1440,
    claims=(
        *paper_claims("pa", noisy_replacement="rw", replacement="rn", no_context="no-context", no_chunks="no-chunks"),
        *paper_claims("pa", noisy_replacement="rw-long", replacement="rn-latents"),
        *paper_claims(
            "pa-base", noisy_replacement="rw-base", replacement="rn-base", one_frame="one-frame", fifo="fifo-base"
        ),
        *paper_claims("pa-text", noisy_replacement="rw-text", replacement="rn-text"),
    ),
)
