"""Claims about systems are decided by scores whose differences are known, prompt by prompt."""

import json
import math

import pytest
from support.small_videos import gradient, write_video

from pavdm_jax.errors import ConfigError
from pavdm_jax.evaluation.claims import check_claims, judge
from pavdm_jax.evaluation.comparison import Claim
from pavdm_jax.evaluation.measure import VideoScores
from pavdm_jax.evaluation.score import ScoreConfig, score

CLAIM = Claim("a lasts longer than b", "a", "b", "survival_seconds", higher=True)


def video(system, name, value, scenes=1):
    scores = {"survival_seconds": value}
    return VideoScores(
        f"{system}/{name}.mp4", system, None, 24.0, 48, 64, 64, scenes, [0.0], {}, scores, {"present": -value}, {}, {}
    )


def videos(**values):
    """Of each system videos 1, 2, ... with these scores."""
    return [video(name, n, value) for name, scores in values.items() for n, value in enumerate(scores)]


@pytest.mark.parametrize(
    ("differences", "higher", "decision", "why"),
    [
        ((5, 6, 7, 5, 6, 7), True, "holds", "it is higher over 6 prompts"),
        ((5, 6, 7, 5, 6, 7), False, "does not hold", "the opposite was measured: it is higher over 6 prompts"),
        ((-5, -6, -7, -5, -6, -7), False, "holds", "it is lower over 6 prompts"),
        ((9, -6, 7, -5, 6, -7), True, "not decided", "over 6 prompts the difference cannot be told from none"),
        ((0, 0, 0, 0, 0), True, "not decided", "over 5 prompts the difference cannot be told from none"),
        ((5, 6, 7, 5), True, "not decided", "4 prompts have this score of both; 5 are the fewest that decide"),
        ((5,), True, "not decided", "1 prompt has this score of both; 5 are the fewest that decide"),
    ],
)
def test_a_claim_is_decided_by_the_interval_of_the_difference(differences, higher, decision, why):
    of_prompts = (10, 40, 20, 50, 30, 5)[: len(differences)]  # prompts differ more than systems do
    ours = [base + difference for base, difference in zip(of_prompts, differences, strict=True)]
    found = judge(Claim("", "a", "b", "survival_seconds", higher), videos(a=ours, b=of_prompts))
    assert (found.decision, found.why) == (decision, why)
    assert found.difference.mean == pytest.approx(sum(differences) / len(differences))
    assert found.better - found.worse == pytest.approx(found.difference.mean)


def test_a_system_that_was_not_run_decides_nothing():
    assert judge(CLAIM, videos(a=[1] * 6)).why == "b was not run"
    assert judge(CLAIM, videos(c=[1] * 6)).why == "a and b were not run"
    assert judge(CLAIM, videos(c=[1] * 6)).decision == "not decided"


def test_videos_are_paired_by_name_and_seeds_of_a_prompt_count_once():
    scores = [video("a", f"{n}-seed{seed}", 10 * n + seed) for n in range(5) for seed in (0, 2)]
    scores += [video("b", f"{n}-seed0", 10 * n) for n in reversed(range(6))]
    found = judge(CLAIM, scores)
    assert (found.decision, found.difference.count) == ("holds", 5)
    assert (found.difference.mean, found.difference.low, found.difference.high) == (1, 1, 1)


def test_missing_scores_are_left_out_pair_by_pair():
    found = judge(CLAIM, videos(a=[2, math.nan, 2, 2, 2, 2], b=[1, 1, math.nan, 1, 1, 1]))
    assert (found.decision, found.difference.count) == ("not decided", 4)
    nothing = judge(CLAIM, videos(a=[math.nan], b=[1]))
    assert nothing.why == "there is no prompt for which both have this score"


def test_scenes_and_changes_over_time_can_be_claimed():
    scores = [video("a", n, 1.0, scenes=1) for n in range(5)] + [video("b", n, 3.0, scenes=4) for n in range(5)]
    assert judge(Claim("", "a", "b", "scenes", higher=False), scores).difference.mean == -3
    change = judge(Claim("", "a", "b", "present", higher=True, change=True), scores)
    assert (change.decision, change.better, change.worse) == ("holds", -1, -3)


def test_claims_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="compares a with itself"):
        Claim("x", "a", "a", "scenes", higher=True)
    with pytest.raises(ConfigError, match="the claim 'x' is about speed, which is no score; there are scenes, motion"):
        check_claims([Claim("x", "a", "b", "speed", higher=True)])


@pytest.mark.parametrize("metric", ["scenes", "survival_seconds", "jumps_per_minute", "subject_consistency"])
def test_a_change_is_of_a_score_with_a_curve(metric):
    check_claims([Claim("x", "a", "b", "present", higher=True, change=True), Claim("x", "a", "b", metric, higher=True)])
    with pytest.raises(ConfigError, match=f"the claim 'x' is about a change of {metric}, which has no curve"):
        check_claims([Claim("x", "a", "b", metric, higher=True, change=True)])


def test_a_definition_s_claims_are_judged_beside_the_scores(tmp_path, capsys):
    definition = tmp_path / "comparison.py"
    definition.write_text(
        "from pavdm_jax.evaluation.comparison import Claim, Comparison, System\n"
        "claims = (Claim('<later> brightens', 'later', 'first', 'brightness', True),\n"
        "          Claim('none cuts', 'later', 'absent', 'scenes', False))\n"
        "comparison = Comparison((System('later'), System('first')), ('x',), claims=claims, note='Foreign videos.')\n"
    )
    for system, offset in (("first", 0), ("later", 60)):
        (tmp_path / system).mkdir()
        for n in range(5):
            write_video(tmp_path / system / f"{n}.mp4", gradient(6, 32, 48, n) + offset)
    output, page = tmp_path / "scores.json", tmp_path / "report.html"
    named = tuple(str(tmp_path / system) for system in ("first", "later"))
    score(ScoreConfig(named, output=str(output), report=str(page), claims=str(definition)))
    found = json.loads(output.read_text())
    assert list(found["systems"]) == ["later", "first"]
    assert [verdict["decision"] for verdict in found["claims"]] == ["holds", "not decided"]
    assert found["claims"][0]["difference"]["mean"] == pytest.approx(60 / 255, abs=0.01)
    told = capsys.readouterr().out
    assert "holds: <later> brightens (brightness: it is higher over 5 prompts)" in told
    assert "not decided: none cuts (scenes: absent was not run)" in told
    text = page.read_text()
    assert "Foreign videos." in text
    assert "Of 2 claims 1 hold, 0 do not hold, 1 are not decided." in text
    assert "&lt;later&gt; brightens" in text
    assert "<b>not decided</b>: absent was not run" in text
