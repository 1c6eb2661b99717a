"""`pavdm evaluate score --world`: what is known of videos of the shapes world stands beside their other scores."""

import json

import numpy as np
import pytest
from support.small_videos import gradient, write_video

from pavdm_jax.data.shapes_world import Scene, Shape, render
from pavdm_jax.errors import ConfigError
from pavdm_jax.evaluation import truth
from pavdm_jax.evaluation.identity import UNITS
from pavdm_jax.evaluation.score import ScoreConfig, score
from pavdm_jax.video.writer import VideoWriter

PROMPT = "a large red circle moves slowly"
FPS = 24


def circle(color="red", frames=4 * FPS):
    return render(Scene((Shape("circle", color, "large", "slow", "right", (0.1, 0.5)),)), frames)


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Of a true video, one that changes its colour after 2 s, and one without a prompt: the JSON file and the page."""
    folder = tmp_path_factory.mktemp("shapes")
    changed = np.concatenate([circle()[: 2 * FPS], circle("blue")[2 * FPS :]])
    for name, frames in (("true/a", circle()), ("changed/a", changed), ("changed/b", circle(frames=6))):
        (folder / name).parent.mkdir(exist_ok=True)
        write_video(folder / f"{name}.mp4", frames)
    for system in ("true", "changed"):
        (folder / system / "a.json").write_text(json.dumps({"prompt": PROMPT}))
    output, page = folder / "scores.json", folder / "report.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(truth, "TRACKER_SAMPLES", 1)
        score(ScoreConfig((str(folder),), output=str(output), report=str(page), world="simple"))
    return json.loads(output.read_text()), page.read_text()


def test_a_true_video_and_one_that_loses_its_color_have_their_known_scores(scored):
    found, _ = scored
    true, changed = found["systems"]["true"], found["systems"]["changed"]
    assert true["means"]["survival_seconds"]["mean"] == 4
    assert changed["means"]["survival_seconds"]["mean"] == pytest.approx(2, abs=0.3)
    assert (true["means"]["survived"]["mean"], changed["means"]["survived"]["mean"]) == (1, 0)
    assert changed["means"]["switches_per_minute"]["mean"] == 15  # one in 4 s
    assert [point["mean"] for point in true["curves"]["present"]] == [1, 1]
    assert [point["mean"] for point in changed["curves"]["present"]] == [1, 0]
    assert changed["contrasts"]["present"]["mean"] == -1
    assert true["means"]["extra"]["mean"] == 0
    assert changed["means"]["extra"]["mean"] == 0  # one is named, one is seen
    assert true["means"]["speed_error"]["mean"] < 5


def test_every_score_says_its_unit_and_how_it_is_measured(scored):
    found, _ = scored
    for name in (*UNITS, *truth.WHOLE_VIDEO):
        unit = UNITS[name] if name in UNITS else truth.WHOLE_VIDEO[name][0]
        assert found["protocols"][name].endswith(f"[{unit}]")
    assert set(truth.CURVES) == set(UNITS)


def test_prompts_are_headings_and_the_tracker_tells_its_own_error(scored):
    found, text = scored
    assert f"<h3>{PROMPT} <small>a</small></h3>" in text
    assert text.count("shapes kept 4 s") == 1
    assert {error["condition"] for error in found["tracker_errors"]} == set(truth.TRACKER_CONDITIONS)
    assert text.count("<td>blur 0.8, noise 8</td>") == 6  # kinds and sizes


def test_a_video_without_a_prompt_is_named_and_left_out(scored):
    found, _ = scored
    ((path, reason),) = found["skipped"].items()
    assert path.endswith("changed/b.mp4")
    assert 'write a file b.json beside it, such as {"prompt": "a red circle moves left"}' in reason
    assert [video["prompt"] for video in found["videos"]] == [PROMPT, PROMPT]


@pytest.mark.parametrize(
    ("comment", "beside", "prompt"),
    [
        ({"prompts": [[[0.0, "in the file"]]]}, None, "in the file"),
        ({"prompts": [[[0.0, "in the file"]]]}, '{"prompt": "beside it"}', "beside it"),
        ({"prompts": [[[0.0, "in the file"]]]}, '{"prompt"', "in the file"),
        ({"prompts": [[[0.0, "first"], [2.0, "then"]]]}, None, None),
        ({"prompts": [[[0.0, "a"]]], "redone": [{"at_frame": 3, "seed": 1, "prompt": None}]}, None, "a"),
        ({"prompts": [[[0.0, "a"]]], "redone": [{"at_frame": 3, "seed": 0, "prompt": "b"}]}, None, None),
        ("by another program", None, None),
        (None, '["no settings"]', None),
    ],
)
def test_a_prompt_is_read_beside_a_video_or_from_its_comment(tmp_path, comment, beside, prompt):
    path = tmp_path / "a.mp4"
    with VideoWriter(path, FPS, comment="" if comment is None else json.dumps(comment)) as writer:
        writer.write(gradient(3, 32, 48))
    if beside is not None:
        path.with_suffix(".json").write_text(beside)
    assert truth.known_prompt(path) == prompt


def test_worlds_and_prompts_that_cannot_be_are_refused(tmp_path):
    write_video(tmp_path / "a.mp4", gradient(3, 32, 48))
    with pytest.raises(ConfigError, match="there is no shapes world 'round'"):
        score(ScoreConfig((str(tmp_path),), world="round"))
    (tmp_path / "a.json").write_text('{"prompt": "a cat"}')
    with pytest.raises(ConfigError, match=r"a\.mp4: prompt 'a cat'"):
        score(ScoreConfig((str(tmp_path),), world="simple"))
