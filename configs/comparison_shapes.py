"""The paper's comparison on the shapes world: every system, the same held-out prompts and seeds, a minute each.

    pavdm evaluate make configs/comparison_shapes.py --output comparison/
    pavdm evaluate score comparison/ --world simple --claims configs/comparison_shapes.py --report report.html

The systems are LoRA adapters of the embedded model, which lie beside the results
(`configs/results/comparison_shapes/systems`). They are trained anew, for which SYSTEMS below becomes "runs", by

    pavdm train --config demo_uniform
    for system in pa rn rw no_context no_chunks; do pavdm train --config demo_$system; done
    pavdm train --config demo_rw --steps 750 --output runs/demo_rw_long

Systems whose checkpoint is not there yet are named and left out; the same command makes their videos later. All are
given the same start clips, a chunk of the true scene, as in the paper; those called -text begin with the prompt alone.
All were trained from the same base on the same scenes with as many steps (RW also with three times as many,
as in the paper; RN and RW with twice as many clips a step), and every latent frame of every system is updated STEPS
times. Hardware: two CPU cores; what has been run is said in `configs/results/README.md`.
"""

from pathlib import Path
from typing import Any

from pavdm_jax.data.shapes_world import SIMPLE
from pavdm_jax.evaluation.comparison import Comparison, System
from pavdm_jax.evaluation.held_out import held_out_starts
from pavdm_jax.evaluation.paper_claims import paper_claims

WORLD = SIMPLE  # that the configs demo_* train on, which see several shapes more often
STEPS = 30  # as in the paper; FIFO-Diffusion and the window without chunks need as many, one for each latent frame
START = 17  # frames: a chunk
SYSTEMS = str(Path(__file__).parent / "results" / "comparison_shapes" / "systems")
BASE = f"{SYSTEMS}/demo_uniform"
REPLACE: dict[str, Any] = {"method": "replacement"}
KEEP: dict[str, Any] = {"method": "replacement", "keep_latents": True}
NOISY: dict[str, Any] = {"method": "noisy-replacement"}

NOTE = (
    "All systems are adapters of one base, trained for as many steps on the same scenes (rw-long for three times as "
    "many; those called -base have none). The base is the embedded model turned back: it had seen progressive windows "
    "before, and pa-base may gain by that."
)


def system(name: str, checkpoint: str, from_text: bool = False, **options) -> System:
    """A system that updates every latent frame STEPS times."""
    return System(name, checkpoint, options={"steps": STEPS} | options, from_text=from_text)


comparison = Comparison(
    systems=(
        system("pa", f"{SYSTEMS}/demo_pa"),
        system("rn", f"{SYSTEMS}/demo_rn", **REPLACE),
        system("rw", f"{SYSTEMS}/demo_rw", **NOISY),
        system("pa-base", BASE),
        system("no-context", f"{SYSTEMS}/demo_no_context"),
        system("no-chunks", f"{SYSTEMS}/demo_no_chunks"),
        system("rw-long", f"{SYSTEMS}/demo_rw_long", **NOISY),
        system("rn-latents", f"{SYSTEMS}/demo_rn", **KEEP),
        system("rn-base", BASE, **REPLACE),
        system("rw-base", BASE, **NOISY),
        system("one-frame", BASE, **REPLACE, context_frames=1),
        system("fifo-base", BASE, schedule="fifo"),
        system("rn-latents-base", BASE, **KEEP),
        system("pa-text", f"{SYSTEMS}/demo_pa", from_text=True),
        system("rn-text", f"{SYSTEMS}/demo_rn", from_text=True, **REPLACE),
        system("rw-text", f"{SYSTEMS}/demo_rw", from_text=True, **NOISY),
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
    note=NOTE,
)
