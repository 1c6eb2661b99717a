"""The page of scores opens offline and shows what the JSON file says."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from support.small_videos import gradient, write_video

from pavdm_jax.errors import ConfigError
from pavdm_jax.evaluation import plots, report
from pavdm_jax.evaluation.score import ScoreConfig, score


@pytest.fixture
def scored(tmp_path):
    """Two systems with a video of the same name each, one of them with four more; their scores and the page."""
    ours = [("ours/a.mp4", 100), ("ours/b.mp4", 60), ("ours/c.mp4", 8), ("ours/d.mp4", 9), ("ours/e.mp4", 7)]
    for name, frames in (*ours, ("<theirs>/a.mp4", 60)):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        write_video(path, gradient(frames, 32, 48, frames))
    (tmp_path / "ours" / "broken.mp4").write_bytes(b"no video")
    systems = tuple(str(tmp_path / name) for name in ("ours", "<theirs>"))
    page = tmp_path / "out" / "report.html"
    score(ScoreConfig(systems, output=str(tmp_path / "scores.json"), report=str(page)))
    return json.loads((tmp_path / "scores.json").read_text()), page


def test_the_page_shows_every_mean_with_its_interval(scored):
    result, page = scored
    text = page.read_text()
    ours = result["systems"]["ours"]["means"]["brightness"]
    assert f"{ours['mean']:.3g}<small>[{ours['low']:.3g}, {ours['high']:.3g}]</small>" in text
    for name, protocol in result["protocols"].items():
        assert f"<dt>{name}</dt>" in text
        assert protocol.split(",")[0] in text


def test_the_page_needs_nothing_else(scored):
    _, page = scored
    text = page.read_text()
    assert set(re.findall(r'src="(.{5})', text)) == {"data:"}
    assert "<link" not in text
    assert "<script" not in text
    assert text.count("data:video/mp4;base64,") == 6
    assert text.count("data:image/jpeg;base64,") == 30
    assert text.count("<svg") == 1


def test_videos_of_one_name_stand_together(scored):
    text = scored[1].read_text()
    places = [text.index(part) for part in ("<h3>a</h3>", "<b>ours</b>", "<b>&lt;theirs&gt;</b>", "<h3>b</h3>")]
    assert places == sorted(places)
    assert "<theirs>" not in text
    assert "broken.mp4 cannot be read" in text


@pytest.mark.parametrize(("ending", "least"), [(".png", 400), ("-frames.png", 150)])
def test_curves_and_frames_are_pictures_too(scored, ending, least):
    page = scored[1]
    with Image.open(page.with_name(page.stem + ending)) as image:
        assert min(image.size) > least


def test_frames_stand_by_prompt_system_and_second(scored, tmp_path):
    result, _ = scored
    pictured = report._pictured(result["videos"])
    assert {name: list(of_name) for name, of_name in pictured.items()} == {"a": ["ours", "<theirs>"]}  # both have it
    (tmp_path / "<theirs>" / "a.mp4").unlink()
    assert list(report._pictured(result["videos"])["a"]) == ["ours"]
    named = [{**video, "prompt": "a red circle"} for video in result["videos"] if video["path"].endswith("/a.mp4")]
    again = [{**video, "path": video["path"].replace("a.mp4", "a-seed1.mp4")} for video in named]
    assert list(report._pictured(named)) == ["a red circle"]
    assert set(report._pictured([*named, *again])) == {"a", "a-seed1"}  # two seeds of one prompt
    seconds = list(pictured["a"]["ours"])
    assert seconds == pytest.approx([0, 100 / 96, 100 / 48, 100 / 32, 100 / 24])
    brightness = [frame.mean() for frame in pictured["a"]["ours"].values()]
    assert np.diff(brightness).min() > 20  # the video brightens

    figure = plots.frames_figure(pictured | {"b": {"<theirs>": pictured["a"]["ours"]}})
    titles = [block.get_suptitle() for block in figure.subfigs]
    assert titles == ["a", "b"]
    costly = {"for $5_$": {"$\\speed$": pictured["a"]["ours"]}}
    plots.frames_figure(costly).savefig(tmp_path / "costly.png")  # no formula, which this is none of
    panels = figure.subfigs[0].axes
    assert [panel.get_ylabel() for panel in panels[::5]] == ["ours", "<theirs>"]
    assert [panel.get_title() for panel in panels[:5]] == [f"{second} s" for second in range(5)]
    assert [len(panel.images) for panel in figure.subfigs[1].axes] == [0] * 5 + [1] * 5


def test_a_video_that_has_gone_is_told_and_large_ones_are_not_put_in(scored, tmp_path, monkeypatch):
    result, _ = scored
    monkeypatch.setattr(report, "MAX_VIDEO_BYTES", 10)
    (tmp_path / "<theirs>" / "a.mp4").unlink()
    page = tmp_path / "again.html"
    report.write_report(page, result)
    text = page.read_text()
    assert "<p>1 video is not here any more, only scores.</p>" in text
    assert "cannot be shown" not in text
    assert "data:video/mp4" not in text
    assert text.count("data:image/jpeg;base64,") == 25
    (tmp_path / "<theirs>" / "a.mp4").write_bytes(b"damaged since")
    report.write_report(page, result)
    assert "cannot be shown" in page.read_text()


def test_curves_have_the_values_and_bands_of_their_systems():
    def summary(values):
        bands = [(None, None) if v is None else (v - 1, v + 1) for v in values]
        points = [{"mean": v, "low": low, "high": high} for v, (low, high) in zip(values, bands, strict=True)]
        return {"curves": {"x": points}, "clip_seconds": [0, 2, 4], "similarity": {"2": points[0]}}

    figure = plots.curves_figure({"one": summary([1.0, 2.0, 4.0]), "two": summary([3.0, None, 5.0])}, {"x": "metres"})
    panel = figure.axes[0]
    assert (panel.get_title(), panel.get_ylabel()) == ("x", "metres")
    first, second = panel.lines[:2]
    assert first.get_xydata().tolist() == [[0, 1], [2, 2], [4, 4]]
    assert second.get_xydata().tolist() == [[0, 3], [4, 5]]
    band = panel.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (0, 5)
    many = plots.curves_figure({str(number): summary([1.0, 2.0, 4.0]) for number in range(5)})
    assert len(many.axes[0].lines) == 5 + 5  # the legend's, too
    assert len(many.axes[0].collections) == 1
    assert many.legends[0].get_title().get_text() == "The band is the 95 % interval of 0."


def test_a_dozen_systems_can_be_told_apart():
    styles = [tuple(sorted(plots._style(number).items())) for number in range(40)]
    assert len(set(styles)) == 40
    assert len({plots._style(number)["color"] for number in range(7)}) == 7
    assert len({(style["color"], style["linestyle"]) for style in map(plots._style, range(28))}) == 28


def test_a_page_must_be_html(tmp_path):
    write_video(tmp_path / "a.mp4", gradient(4, 32, 48))
    with pytest.raises(ConfigError, match=r"must end in \.html"):
        score(ScoreConfig((str(tmp_path),), report=str(tmp_path / "report.pdf")))


def test_frames_of_large_videos_are_reduced():
    assert report._reduced(64, 64) == (64, 64)
    assert report._reduced(1080, 1920) == (160, 284)
    assert report._picture(np.zeros((8, 8, 3), np.uint8)).startswith("data:image/jpeg;base64,")
