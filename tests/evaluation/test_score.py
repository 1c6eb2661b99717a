"""`pavdm evaluate score` on files and folders of any origin."""

import json

import numpy as np
import pytest
from support.small_videos import gradient, write_video

from pavdm_jax import evaluate
from pavdm_jax.errors import ConfigError
from pavdm_jax.evaluation.measure import CLIP_METRICS
from pavdm_jax.evaluation.score import ScoreConfig, score
from pavdm_jax.evaluation.videos import find_videos
from pavdm_jax.video.clips import frame_rate


@pytest.fixture
def folder(tmp_path):
    """Two videos of one system, whose names VBench-Long would take for one, one of another and a broken file."""
    for name, frames in (("ours/sample_0001.mp4", 100), ("ours/sample_0002.mp4", 48), ("theirs/clip.mp4", 60)):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        write_video(path, gradient(frames, 32, 48, frames))
    (tmp_path / "theirs" / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "theirs" / "notes.txt").write_text("no video either")
    unfinished = tmp_path / "theirs" / "later.mp4"
    write_video(unfinished, gradient(5, 32, 48))
    unfinished.rename(unfinished.with_name("later.partial.mp4"))
    return tmp_path


def test_a_folder_of_foreign_videos_gives_a_table_and_curves(folder, tmp_path, capsys):
    output = tmp_path / "out" / "scores.json"
    with pytest.raises(SystemExit) as end:
        evaluate.main(["score", str(folder), "--output", str(output)])
    assert end.value.code == 0
    told, said = capsys.readouterr()
    assert told.splitlines()[0].split() == ["ours", "(2)", "theirs", "(1)"]
    assert "1 of 4 videos were skipped" in told
    assert said.count("skipped: ") == 1
    assert "broken.mp4 cannot be read as a video" in said

    found = json.loads(output.read_text())
    assert list(found["skipped"]) == [str(folder / "theirs" / "broken.mp4")]
    assert [video["frames"] for video in found["videos"]] == [100, 48, 60]
    assert found["videos"][0]["clip_seconds"] == pytest.approx([0, 2, 52 / 24])
    names = {metric.name for metric in CLIP_METRICS}
    for video, clips in zip(found["videos"], (3, 1, 2), strict=True):
        assert set(video["curves"]) == set(video["means"]) == set(video["contrasts"]) == names
        assert {len(curve) for curve in video["curves"].values()} == {clips}
        assert video["scenes"] == 1
    assert found["videos"][1]["contrasts"]["brightness"] is None  # of one clip
    assert names | {"scenes", "similarity", "contrasts", "curves", "intervals"} == set(found["protocols"])

    ours = found["systems"]["ours"]
    assert ours["videos"] == 2
    brightness = [video["means"]["brightness"] for video in found["videos"][:2]]
    assert ours["means"]["brightness"]["mean"] == pytest.approx(np.mean(brightness))
    assert ours["means"]["brightness"]["low"] is None  # of two videos
    assert [point["count"] for point in ours["curves"]["sharpness"]] == [2, 1, 1]
    assert ours["contrasts"]["brightness"]["mean"] > 0  # these videos brighten
    assert ours["similarity"]["2"]["mean"] > ours["similarity"]["40"]["mean"]


def test_files_can_be_named_one_by_one(folder):
    result = score(ScoreConfig((str(folder / "theirs" / "clip.mp4"), str(folder / "ours" / "sample_0001.mp4"))))
    assert list(result["systems"]) == ["theirs", "ours"]


def test_frames_a_second_are_those_of_the_file(tmp_path):
    path = write_video(tmp_path / "film.mp4", gradient(47, 32, 48), fps=24000 / 1001)
    assert frame_rate(path) == pytest.approx(23.976, abs=1e-3)
    assert score(ScoreConfig((path,)))["videos"][0]["clip_seconds"] == pytest.approx([0, 1 / 23.976], rel=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: (), "no videos were given"),
        (lambda folder: (str(folder / "none"),), "does not exist; check the name"),
        (lambda folder: (str(folder / "empty"),), "there are no videos in the folder"),
        (
            lambda folder: (str(folder / "theirs" / "broken.mp4"),),
            "can be scored; the first: .*broken.mp4 cannot",
        ),
        (lambda folder: ("gs://bucket/a.mp4",), "must be on a disk"),
    ],
)
def test_nothing_to_score_is_told_in_one_line(folder, make, message):
    (folder / "empty").mkdir()
    with pytest.raises(ConfigError, match=message):
        score(ScoreConfig(make(folder)))


def test_an_output_that_cannot_be_is_refused_before_the_work(folder):
    with pytest.raises(ConfigError, match=r"must end in \.json"):
        score(ScoreConfig((str(folder),), output="scores.txt"))


def test_a_video_of_less_than_a_frame_a_second_is_named(tmp_path):
    path = write_video(tmp_path / "slides.mp4", gradient(4, 32, 48), fps=0.5)
    with pytest.raises(ConfigError, match=r"slides\.mp4: clips of 2 seconds cannot be cut at 0\.5 frames"):
        score(ScoreConfig((path,)))


def test_a_single_frame_is_skipped(tmp_path):
    write_video(tmp_path / "one.mp4", gradient(1, 32, 48))
    with pytest.raises(ConfigError, match="none of the 1"):
        score(ScoreConfig((str(tmp_path),)))


def test_systems_of_one_name_are_told_apart_by_their_folders(tmp_path):
    for name in ("first/run", "second/run"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.mp4").write_bytes(b"")
    assert [video.system for video in find_videos([str(tmp_path)])] == ["first/run", "second/run"]


def test_a_gif_beside_its_video_is_not_another_video(tmp_path):
    for name in ("a.mp4", "a.gif", "b.gif", "c.mp4"):
        (tmp_path / name).write_bytes(b"")
    assert [video.path.name for video in find_videos([str(tmp_path)])] == ["a.mp4", "b.gif", "c.mp4"]


def test_a_missing_library_is_told_with_the_remedy(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(ConfigError, match=r"pip install 'pavdm_jax\[metrics\]'"):
        score(ScoreConfig((str(folder),)))
