"""Scores are kept in their file: a comparison can be scored in parts, of which the videos are gone by then."""

import json
import shutil

import pytest
from support.small_videos import gradient, write_video

from pavdm_jax.errors import ConfigError
from pavdm_jax.evaluation.score import ScoreConfig, score
from pavdm_jax.evaluation.score_files import read_scores

NAMES = [f"{system}/{name}" for system in ("ours", "theirs") for name in ("1", "2")]


@pytest.fixture
def videos(tmp_path):
    for number, name in enumerate(NAMES):
        path = tmp_path / f"{name}.mp4"
        path.parent.mkdir(exist_ok=True)
        write_video(path, gradient(48 + 12 * number, 32, 48, number))
        path.with_suffix(".json").write_text(json.dumps({"settings": {"method": name}, "checkpoint": "demo"}))
    return [tmp_path / f"{name}.mp4" for name in NAMES]


def scored(*videos, **options):
    return score(ScoreConfig(tuple(str(video) for video in videos), **options))


@pytest.fixture
def halves(videos, tmp_path):
    """Scores of the first videos of both systems, which are gone, and of the second."""
    first = scored(videos[0], videos[2], output=str(tmp_path / "first.json"))
    rest = scored(videos[1], videos[3])
    return first, rest


def test_a_comparison_scored_in_parts_has_the_same_scores(halves, videos, tmp_path):
    whole = scored(*videos)
    for gone in (videos[0], videos[2]):
        gone.unlink()
        gone.with_suffix(".json").unlink()
    report = tmp_path / "all.html"
    parts = scored(videos[1], videos[3], earlier=(str(tmp_path / "first.json"),), report=str(report))
    assert parts["videos"] == whole["videos"]
    assert parts["systems"] == whole["systems"]
    assert parts["runs"] == whole["runs"]
    page = report.read_text()
    assert "2 videos are not here any more" in page
    assert "cannot be shown" not in page
    assert report.with_name("all-frames.png").is_file()


def test_scores_alone_make_a_report(halves, tmp_path):
    for folder in ("ours", "theirs"):
        shutil.rmtree(tmp_path / folder)
    found = scored(earlier=(str(tmp_path / "first.json"),), report=str(tmp_path / "r.html"))
    assert len(found["videos"]) == 2
    assert not (tmp_path / "r-frames.png").exists()


def test_a_video_that_is_scored_again_counts_once(halves, videos, tmp_path):
    write_video(videos[0], gradient(72, 32, 48, 9))
    found = scored(videos[0], earlier=(str(tmp_path / "first.json"),) * 2)
    assert [(video["system"], video["frames"]) for video in found["videos"]] == [("ours", 72), ("theirs", 72)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found.pop("videos"), "is not a file of scores"),
        (lambda found: found["videos"][0].pop("curves"), "is not a file of scores"),
        (lambda found: found["videos"][0].update(fps=0), "is not a file of scores"),
        (lambda found: found["videos"][0].update(run=[1]), "is not a file of scores"),
        (lambda found: found["videos"][0].update(fps=10**400), "is not a file of scores"),
        (lambda found: found["videos"][0]["curves"].update(brightness="high"), "is not a file of scores"),
        (lambda found: found["videos"][0]["means"].update(beauty=1.0), "has scores that .* does not have .beauty."),
        (lambda found: found["videos"][0]["similarity"].pop("50"), "has other similarities"),
        (lambda found: found["protocols"].update(brightness="by eye"), "brightness measured in another way than now"),
    ],
)
def test_a_file_of_other_scores_is_refused_in_one_line(halves, tmp_path, change, message):
    path = tmp_path / "first.json"
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))
    with pytest.raises(ConfigError, match=message) as error:
        read_scores(str(path))
    assert "\n" not in str(error.value)


def test_a_missing_file_and_a_reference_are_refused(halves, videos, tmp_path):
    with pytest.raises(ConfigError, match="there is no file"):
        read_scores(str(tmp_path / "none.json"))
    with pytest.raises(ConfigError, match="--reference needs the videos"):
        scored(videos[1], earlier=(str(tmp_path / "first.json"),), reference=str(tmp_path / "theirs"))
