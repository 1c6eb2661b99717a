"""What was run to make videos, by what is noted beside them or in them."""

import json
from pathlib import Path

import pytest
from support.small_videos import gradient

from pavdm_jax.evaluation.report_tables import runs
from pavdm_jax.evaluation.run_settings import read_settings
from pavdm_jax.evaluation.runs import what_was_run
from pavdm_jax.evaluation.summary import as_json
from pavdm_jax.video.writer import VideoWriter

SETTINGS = {"method": "progressive", "weights": "abc", "trained_with": "levels", "prompts": ["x"], "seeds": [0]}
SETTINGS |= {"window": {"steps": 30, "fixed_length": False}, "start_frames": 0}


class Video:
    """What is asked of a scored video."""

    def __init__(self, system, path):
        self.system, self.path_, self.run = system, path, read_settings(path)


@pytest.fixture
def noted(tmp_path):
    """Makes a video with what is noted beside it, and with a comment."""

    def make(system, name, beside=None, comment=""):
        path = tmp_path / system / f"{name}.mp4"
        path.parent.mkdir(exist_ok=True)
        with VideoWriter(path, 24, crf=20, comment=comment) as writer:
            writer.write(gradient(3, 32, 48))
        if beside is not None:
            path.with_suffix(".json").write_text(beside if isinstance(beside, str) else json.dumps(beside))
        return Video(system, path)

    return make


def test_a_system_has_what_its_videos_have_in_common_and_the_sum_of_their_seconds(noted):
    made_by = {"commit": "0123", "devices": "1 cpu"}
    common = {"checkpoint": "demo", "made_by": made_by, "settings": SETTINGS}
    first = noted("ours", "a", common | {"seconds_of_computing": 10.5})
    other = SETTINGS | {"prompts": ["y"], "seeds": [1], "start_frames": 17}
    second = noted("ours", "b", common | {"seconds_of_computing": 20, "settings": other})
    killed = noted("ours", "c", common | {"seconds_of_computing": None, "made_by": made_by | {"commit": "4567"}})
    foreign = Video("theirs", Path("nowhere.mp4"))
    found = what_was_run([first, foreign, second, killed])
    assert list(found) == ["ours", "theirs"]
    ours = found["ours"]
    assert (ours.videos, ours.known, ours.seconds_of_computing, ours.timed) == (3, 3, 30.5, 2)
    assert (ours.checkpoints, ours.weights, ours.trained_with) == (["demo"], ["abc"], ["levels"])
    assert (ours.commits, ours.devices) == (["0123", "4567"], ["1 cpu"])
    assert ours.differing == ["start_frames"]
    assert ours.settings == {name: SETTINGS[name] for name in ("method", "weights", "trained_with", "window")}
    assert (found["theirs"].videos, found["theirs"].known) == (1, 0)

    table = runs({"runs": as_json(found)})
    assert "method progressive, steps 30<br>differ between videos: start frames" in table
    assert "30 s<small>for 2 of 3 videos</small>" in table
    assert "Of 1 other video nothing is noted." in table
    assert "theirs" not in table


def test_settings_are_read_from_the_comment_where_nothing_lies_beside(noted):
    assert read_settings(noted("a", "b", comment=json.dumps(SETTINGS)).path_) == {"settings": SETTINGS}


@pytest.mark.parametrize("beside", [None, "{", "[1]", '{"prompt": "a red circle"}', '{"settings": 3}'])
@pytest.mark.parametrize("comment", ["", "made by hand", "[1]", "3", '{"weights": 1}'])
def test_of_videos_of_others_nothing_is_known(noted, beside, comment):
    assert read_settings(noted("a", "b", beside, comment).path_) is None
