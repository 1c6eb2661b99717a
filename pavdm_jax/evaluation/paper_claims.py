"""What the paper claims of its method against each of the other systems, as scores of videos decide it.

The paper counts scenes and measures VBench-Long and FVD (Table 1), and shows by frames where the others fail. Its
scenes and its motion are measured here, too; for quality stand the scores that know the truth of the shapes world.
"""

from dataclasses import dataclass

from pavdm_jax.evaluation.comparison import Claim

KEPT = "quality is kept for a minute: shapes remain what they are for longer"
FADED = "quality is kept for a minute: fewer shapes are lost between beginning and end"


@dataclass(frozen=True)
class _Against:
    """A claim against a kind of system; the other fields as in `Claim`."""

    kind: str
    text: str
    metric: str
    higher: bool
    change: bool = False


CLAIMS = (
    _Against(
        "noisy_replacement",
        "replacement with noise comes to rest, the progressive method moves on",
        "motion_amplitude",
        True,
    ),
    _Against(
        "noisy_replacement",
        "replacement with noise slows down, the progressive method does not",
        "motion_amplitude",
        True,
        change=True,
    ),
    _Against("noisy_replacement", KEPT, "survival_seconds", True),
    _Against("noisy_replacement", FADED, "present", True, change=True),
    _Against(
        "replacement",
        "replacement without noise cuts between clips, the progressive method goes on smoothly",
        "scenes",
        False,
    ),
    _Against(
        "replacement",
        "replacement without noise lets shapes jump, the progressive method moves them",
        "jumps_per_minute",
        False,
    ),
    _Against("replacement", KEPT, "survival_seconds", True),
    _Against("replacement", FADED, "present", True, change=True),
    _Against(
        "one_frame", "one frame of context loses the motion, the progressive method keeps it", "speed_error", False
    ),
    _Against("one_frame", KEPT, "survival_seconds", True),
    _Against("fifo", "FIFO-Diffusion cuts, the progressive method goes on smoothly", "scenes", False),
    _Against("fifo", "FIFO-Diffusion jitters, the progressive method moves smoothly", "jitter", False),
    _Against("no_context", "without a context chunk shapes jump", "jumps_per_minute", False),
    _Against("no_context", "without a context chunk motion is not smooth", "path_error", False),
    _Against(
        "no_chunks", "without chunks errors add up: shapes remain what they are for longer", "survival_seconds", True
    ),
    _Against("no_chunks", "without chunks errors add up: shapes are lost on the way", "present", True, change=True),
)


def paper_claims(ours: str, **others: str) -> tuple[Claim, ...]:
    """The claims of a system of the paper's method against others.

    Args:
      ours: its name.
      others: names of systems by their kind: noisy_replacement, replacement, one_frame, fifo, no_context, no_chunks.
    """
    return tuple(
        Claim(claim.text, ours, others[claim.kind], claim.metric, claim.higher, claim.change)
        for claim in CLAIMS
        if claim.kind in others
    )
