"""The numbers that documents give are those of the scores beside them."""

import json
import statistics
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "configs" / "results"
SCORES = json.loads((RESULTS / "comparison_shapes" / "scores.json").read_text())
TABLE = (RESULTS / "README.md").read_text()


def rounded(value: float, places: int) -> str:
    return str(Decimal(repr(value)).quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP))


def digits(value: float) -> str:
    """Two of them, as the tables have them."""
    return rounded(value, 0 if value >= 9.95 else 1)


def percent(share: float) -> str:
    """What is not all does not round to all."""
    return rounded(100 * share, 1 if 0.995 <= share < 1 else 0)


def means(system: str) -> dict[str, float]:
    return {name: estimate["mean"] for name, estimate in SCORES["systems"][system]["means"].items()}


def row(system: str) -> str:
    """A system's row in the table of results, without its name."""
    mean = means(system)
    scenes = [video["scenes"] for video in SCORES["videos"] if video["system"] == system]
    cells = [
        rounded(SCORES["systems"][system]["scenes"]["mean"], 1),
        ", ".join(map(str, scenes)),
        f"{digits(mean['survival_seconds'])} s",
        rounded(mean["present"], 2),
        rounded(mean["extra"], 2),
        digits(mean["switches_per_minute"]),
        digits(mean["jumps_per_minute"]),
        f"{rounded(mean['speed_error'], 0)} %",
    ]
    return f"| {' | '.join(cells)} |"


@pytest.mark.parametrize("system", SCORES["systems"])
def test_the_table_of_results_is_of_the_scores(system):
    assert row(system) in TABLE


@pytest.mark.parametrize("comparison", ["distilled", "guidance", "reuse"])
def test_the_tables_of_faster_sampling_are_of_the_scores(comparison):
    scores = json.loads((RESULTS / f"comparison_{comparison}" / "scores.json").read_text())
    page = (ROOT / "configs" / "README.md").read_text()
    missing = []
    for system, found in scores["systems"].items():
        mean = {name: estimate["mean"] for name, estimate in found["means"].items()}
        seconds = [video["run"]["seconds_of_computing"] for video in scores["videos"] if video["system"] == system]
        cells = [
            *(rounded(mean[name], 2) for name in ("present", "extra")),
            f"{rounded(mean['speed_error'], 0)} %",
            f"{digits(mean['survival_seconds'])} s",
            rounded(mean["motion_amplitude"], 0),
            *(digits(mean[name]) for name in ("switches_per_minute", "jumps_per_minute")),
            rounded(statistics.median(seconds), 1),
        ]
        if f"| {' | '.join(cells)} |" not in page:
            missing.append((system, cells))
    assert missing == []


def test_the_front_page_tells_the_results():
    page = (ROOT / "README.md").read_text()
    decisions = [claim["decision"] for claim in SCORES["claims"]]
    holds, fails = decisions.count("holds"), decisions.count("does not hold")
    for text in (TABLE, page):
        assert f"of {len(decisions)} claims {holds} hold" in text
        assert f"{fails} do not" in text
    systems = [means(system) for system in ("pa", "rn", "rw")]
    pa, rn, rw = (digits(mean["survival_seconds"]) for mean in systems)
    assert f"for {pa}, {rn} and {rw} s of 60" in page
    pa, rn, rw = (digits(mean["switches_per_minute"]) for mean in systems)
    assert f"for another {pa}, {rn} and {rw} times a minute" in page


def test_the_scores_of_the_embedded_model_are_those_of_its_evaluation():
    found = json.loads((ROOT / "pavdm_jax" / "assets" / "demo-distilled" / "evaluation.json").read_text())
    page = (ROOT / "pavdm_jax" / "assets" / "demo" / "README.md").read_text()
    percents = {
        name: [percent(one[end]) for end in ("mean", "low", "high")]
        for name, one in found["right_of_all_clips"].items()
    }
    switches = {
        name: [digits(one[end]) for end in ("mean", "low", "high")]
        for name, one in found["switches_per_minute"].items()
    }
    cells = ["{} ({} to {}) %".format(*percents["all"]), "{} ({} to {})".format(*switches["all"])]
    speed = found["speed_error_percent"]
    cells.append("{} ({} to {}) %".format(*(rounded(speed[end], 0) for end in ("mean", "low", "high"))))
    assert [cell for cell in cells if f"| {cell} |" not in page] == []
    front = (ROOT / "README.md").read_text()
    one, several = (f"{percents[name][0]} %" for name in ("one shape", "several"))
    assert (
        f"all {percents['all'][0]} %, {switches['all'][0]} a minute; one shape {one}, {switches['one shape'][0]}"
        in front
    )
    assert f"two and three {several}, {switches['several'][0]}" in front


def test_the_table_beside_pytorch_is_of_the_timings():
    rows = json.loads((RESULTS / "beside_pytorch" / "timings.json").read_text())["rows"]
    page = (ROOT / "pavdm_jax" / "ahead_of_time" / "README.md").read_text()
    assert len(rows) == 11
    for timed in rows:
        ours = next(row for row in rows if row["case"] == timed["case"])["minimum"]
        assert timed["over_ours"] == pytest.approx(timed["minimum"] / ours, rel=1e-4)
        places = 3 if ours < 0.1 else 2
        cell = f"{rounded(timed['minimum'], places)} s, {rounded(timed['median'], places)} s"
        cell += "" if timed["implementation"] == "ours" else f": **{rounded(timed['over_ours'], 2)}**"
        assert f"| {cell} " in page, f"{timed['case']}, {timed['implementation']}: {cell}"
