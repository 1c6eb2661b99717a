"""Whether scores decide what is claimed of two systems.

Systems are compared prompt by prompt: of each prompt for which both have a score (the mean over seeds), the difference
counts, and a claim is decided if the 95 % interval of the mean difference (`bootstrap.mean_with_interval`) lies on one
side of 0. Videos of one prompt have the same name in all systems, but for the seed at its end (`Comparison.videos`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pavdm_jax.errors import ConfigError
from pavdm_jax.evaluation.bootstrap import FEWEST, Estimate, mean_with_interval
from pavdm_jax.evaluation.comparison import Claim
from pavdm_jax.evaluation.measure import VideoScores
from pavdm_jax.evaluation.summary import CURVES, UNITS

Decision = Literal["holds", "does not hold", "not decided"]


@dataclass(frozen=True)
class Verdict:
    """What the scores say of a claim.

    Attributes:
      claim: the claim.
      decision: holds; does not hold: the opposite was measured; or not decided.
      why: one sentence with the numbers.
      better, worse: the mean score of the system that is said to be better, and of the other one, over the prompts that
        both have; None if there are none.
      difference: the first minus the second, with its interval; `count` is the number of prompts. None as these.
    """

    claim: Claim
    decision: Decision
    why: str
    better: float | None = None
    worse: float | None = None
    difference: Estimate | None = None


def check_claims(claims: Sequence[Claim]) -> None:
    """Raises `ConfigError` for claims about a score that does not exist, or the change of one that has no curve."""
    for claim in claims:
        if claim.metric not in UNITS:
            raise ConfigError(
                f"the claim '{claim.text}' is about {claim.metric}, which is no score; there are {', '.join(UNITS)}"
            )
        if claim.change and claim.metric not in CURVES:
            raise ConfigError(
                f"the claim '{claim.text}' is about a change of {claim.metric}, which has no curve over a video; there "
                f"are {', '.join(CURVES)}"
            )


def judge(claim: Claim, scores: Sequence[VideoScores]) -> Verdict:
    """What the scores of all videos say of a claim."""
    absent = [name for name in (claim.better, claim.worse) if all(video.system != name for video in scores)]
    if absent:
        return Verdict(claim, "not decided", f"{' and '.join(absent)} {'were' if absent[1:] else 'was'} not run")
    better, worse = _by_prompt(claim, claim.better, scores), _by_prompt(claim, claim.worse, scores)
    both = [prompt for prompt in better if prompt in worse]
    if not both:
        return Verdict(claim, "not decided", "there is no prompt for which both have this score")
    ours, theirs = np.array([better[prompt] for prompt in both]), np.array([worse[prompt] for prompt in both])
    difference = mean_with_interval(ours - theirs)
    decision, why = _decide(claim, difference)
    return Verdict(claim, decision, why, float(ours.mean()), float(theirs.mean()), difference)


def _by_prompt(claim: Claim, system: str, scores: Sequence[VideoScores]) -> dict[str, float]:
    """The mean score of a system over the seeds of each prompt, by the names of its videos without the seed."""
    found: dict[str, list[float]] = {}
    for video in scores:
        value = _value(claim, video)
        if video.system == system and np.isfinite(value):
            found.setdefault(re.sub(r"-seed\d+$", "", Path(video.path).stem), []).append(value)
    return {prompt: float(np.mean(values)) for prompt, values in found.items()}


def _value(claim: Claim, video: VideoScores) -> float:
    if claim.change:
        return video.contrasts.get(claim.metric, float("nan"))
    return float(video.scenes) if claim.metric == "scenes" else video.means.get(claim.metric, float("nan"))


def _decide(claim: Claim, difference: Estimate) -> tuple[Decision, str]:
    prompts = f"{difference.count} prompt{'s' * (difference.count != 1)}"
    if difference.low is None or difference.high is None:
        have = "has" if difference.count == 1 else "have"
        return "not decided", f"{prompts} {have} this score of both; {FEWEST} are the fewest that decide"
    if difference.low <= 0 <= difference.high:
        return "not decided", f"over {prompts} the difference cannot be told from none"
    found = "higher" if difference.low > 0 else "lower"
    if (found == "higher") == claim.higher:
        return "holds", f"it is {found} over {prompts}"
    return "does not hold", f"the opposite was measured: it is {found} over {prompts}"
