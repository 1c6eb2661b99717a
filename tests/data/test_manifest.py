"""Videos from files, at given moments, and the clips of a manifest."""

import dataclasses
import io
import json
import os
import shutil

import av
import numpy as np
import pytest
from support.small_videos import gradient, write_csv, write_examples

from pavdm_jax import storage
from pavdm_jax.config import tiny
from pavdm_jax.data import manifest as manifest_module
from pavdm_jax.data import sources
from pavdm_jax.data.clips import open_clips
from pavdm_jax.data.config import VideoData
from pavdm_jax.data.loader import batches
from pavdm_jax.data.manifest import bucket, index_files, read_manifest
from pavdm_jax.data.sources import PixelSource
from pavdm_jax.errors import ConfigError
from pavdm_jax.video.clips import frames_within, probe, read_clip, read_video

MODEL = tiny()  # 16 by 24 pixels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module", autouse=True)
def manifest(folder):
    return write_examples(folder)


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_clip_holds_the_frames_of_its_moments(folder):
    path = str(folder / "long.mp4")
    whole = read_video(path)
    assert dataclasses.astuple(probe(path))[:2] == (64, 96)
    assert frames_within(0, probe(path).seconds, 24) == 70
    np.testing.assert_array_equal(read_clip(path, 20 / 24, 24, 30, (64, 96)), whole[20:50])
    np.testing.assert_array_equal(read_clip(path, 0, 12, 35, (64, 96)), whole[::2])
    np.testing.assert_array_equal(read_clip(path, 1 / 24, 48, 5, (64, 96)), whole[[1, 1, 2, 2, 3]])
    with pytest.raises(ConfigError, match="ends after 10 of the 11"):
        read_clip(path, 60 / 24, 24, 11, (64, 96))


def test_a_variable_frame_rate_is_read_by_time(tmp_path):
    """Pictures at 0, 1, 2, 3 tenths of a second, then at 10, 20, 21: each is shown until the next one."""
    times, frames = [0, 1, 2, 3, 10, 20, 21], gradient(7, 64, 64)
    with av.open(str(tmp_path / "v.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height = stream.width = 64
        stream.pix_fmt = "bgr0"
        for time, pixels in zip(times, frames, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="bgr0")
            frame.pts, frame.time_base = time, 1 / stream.codec_context.framerate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    path = str(tmp_path / "v.mkv")
    count = frames_within(0, probe(path).seconds, 10)
    shown = [max(n for n, time in enumerate(times) if time <= tick) for tick in range(count)]
    assert count in (21, 22)  # containers differ in how long the last picture lasts
    np.testing.assert_array_equal(read_clip(path, 0, 10, 21, (64, 64)), frames[shown[:21]])
    np.testing.assert_array_equal(read_clip(path, 0.5, 5, 6, (64, 64)), frames[[3, 3, 3, 4, 4, 4]])


def test_damaged_files_are_refused_by_name(folder):
    for name in ("noise.mp4", "cut.mp4"):
        with pytest.raises(ConfigError, match=name):
            probe(str(folder / name))


@pytest.mark.parametrize("name", ["v.mp4", "v.png"])
def test_a_bucket_that_cannot_be_reached_is_no_fault_of_the_file(tmp_path, monkeypatch, name):
    class Unreachable(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            raise storage.StorageError("the way is gone")

    monkeypatch.setattr(storage, "open_binary", lambda path: Unreachable())
    monkeypatch.setattr(storage, "stamps", lambda paths: dict.fromkeys(paths, (1, 1)))
    with pytest.raises(storage.StorageError, match="the way is gone"):
        index_files(tmp_path / "clips.csv", [f"gs://bucket/{name}"])
    assert not list(tmp_path.iterdir())  # else the file would count as damaged for ever


# --- manifests --------------------------------------------------------------------------------------------------------


def test_a_manifest_is_cut_into_clips_and_skips_what_cannot_be_read(manifest, folder, capfd):
    clips = open_clips(VideoData(manifest, frames=17), MODEL)
    assert len(clips) == 2 + 2 + 4
    assert sorted(os.path.basename(path) for path in clips.skipped) == ["cut.mp4", "noise.mp4"]
    told = capfd.readouterr().err
    assert "2 files or rows give no clip" in told
    assert "noise.mp4" in told
    assert clips.frames(5).shape == (17, 16, 24, 3)
    assert clips.captions(7) == ["a long clip"]
    index = json.loads((folder / "clips.index.json").read_text())
    assert index[str(folder / "tall.mp4")]["video"]["height"] == 96
    index[str(folder / "tall.mp4")]["video"]["seconds"] = 0.1  # the index is believed as long as the file is the same
    (folder / "clips.index.json").write_text(json.dumps(index))
    assert len(open_clips(VideoData(manifest, frames=17), MODEL)) == 2 + 4
    os.utime(folder / "tall.mp4")
    assert len(open_clips(VideoData(manifest, frames=17), MODEL)) == 2 + 2 + 4


def test_a_file_that_could_not_be_read_is_tried_again(folder, tmp_path, monkeypatch):
    def unreadable(path):
        raise ConfigError("the disk did not answer")

    path, kept_in = str(folder / "wide.mp4"), tmp_path / "clips.index.json"
    with monkeypatch.context() as patched:
        patched.setattr(manifest_module, "probe", unreadable)
        assert index_files(tmp_path / "clips.csv", [path]) == {path: "the disk did not answer"}
    assert index_files(tmp_path / "clips.csv", [path]) == {path: probe(path)}
    entry = json.loads(kept_in.read_text())[path]
    kept_in.write_text(json.dumps({path: {"file": entry["file"], "error": "of an earlier version"}}))
    assert index_files(tmp_path / "clips.csv", [path]) == {path: probe(path)}


def test_files_that_were_read_before_an_end_are_not_read_again(folder, tmp_path, monkeypatch):
    paths = [str(folder / "wide.mp4"), str(folder / "tall.mp4")]

    def ends(path):
        if path == paths[1]:
            raise storage.StorageError("the way is gone")
        return probe(path)

    with monkeypatch.context() as patched, pytest.raises(storage.StorageError, match="the way is gone"):
        patched.setattr(manifest_module, "probe", ends)
        index_files(tmp_path / "clips.csv", paths)
    assert list(json.loads((tmp_path / "clips.index.json").read_text())) == paths[:1]


@pytest.mark.parametrize(
    ("field", "value"),
    [("height", 0), ("height", "96"), ("width", -5), ("width", 1.5), ("seconds", 1e18), ("seconds", -1)],
)
def test_an_index_of_what_cannot_be_is_written_again(folder, tmp_path, field, value):
    path, kept_in = str(folder / "wide.mp4"), tmp_path / "clips.index.json"
    index_files(tmp_path / "clips.csv", [path])
    said = json.loads(kept_in.read_text())
    said[path]["video"][field] = value
    kept_in.write_text(json.dumps(said))
    assert index_files(tmp_path / "clips.csv", [path]) == {path: probe(path)}
    assert json.loads(kept_in.read_text())[path]["video"][field] != value


@pytest.mark.parametrize("damage", ["file", "video", "height", "all"])
def test_a_damaged_index_is_written_again(folder, tmp_path, damage):
    path, kept_in = str(folder / "wide.mp4"), tmp_path / "clips.index.json"
    index_files(tmp_path / "clips.csv", [path])
    whole = kept_in.read_text()
    entry = json.loads(whole)[path]
    for part in (entry, entry["video"]):
        part.pop(damage, None)
    kept_in.write_text("[1]" if damage == "all" else json.dumps({path: entry}))
    assert index_files(tmp_path / "clips.csv", [path]) == {path: probe(path)}
    assert kept_in.read_text() == whole


def test_rows_may_name_a_part_and_a_rate(folder):
    path = folder / "parts.jsonl"
    rows = [
        {"path": "long.mp4", "caption": "part", "start": 1.0, "end": 2.0},
        {"path": "long.mp4", "caption": "slow", "fps": 12},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    clips = open_clips(VideoData(str(path), frames=17), MODEL)
    assert [clips.fps(n) for n in range(len(clips))] == [24, 12, 12]
    whole = read_clip(str(folder / "long.mp4"), 0, 24, 70, (16, 24))
    np.testing.assert_array_equal(clips.frames(0), whole[24:41])
    np.testing.assert_array_equal(clips.frames(2), whole[34:68:2])


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("path,text", "wide.mp4,x", "line 2.*no caption.*it has path, text"),
        ("path,caption", "nowhere.mp4,x", "1 files that do not exist, first .*nowhere.mp4"),
        ("path,caption,start", "wide.mp4,x,soon", "start 'soon' is no number"),
        ("path,caption,start,end", "wide.mp4,x,2,1", "must come after the start"),
        ("path,caption,fps", "wide.mp4,x,0", "fps must be above 0"),
        ("path,caption,fps", "wide.mp4,x,1e12", "fps must be above 0"),
        ("path,caption", "wide.mp4,a circle, moving", "line 2 .*has more columns than the header; put a text"),
        ("path,caption", 'wide.mp4,"a circle\nwide.mp4,x', "cannot be read: unexpected end of data"),
        ("path,caption", "wide.mp4,  ", "has an empty caption"),
        ("path,caption", "", "has no rows"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(folder, header, row, message):
    with pytest.raises(ConfigError, match=message):
        read_manifest(write_csv(folder / "bad.csv", [row] if row else [], header))


@pytest.mark.parametrize(
    "row",
    [
        '{"path": ' + "[" * 3000,
        '{"path": ' + "7" * 5000 + "}",
        r'{"path": "\ud800", "caption": "x"}',
        '{"path": "a\\u0000"}',
    ],
    ids=["depth", "digits", "surrogate", "nul"],
)
def test_rows_of_json_that_no_file_can_be_named_by_are_one_line(folder, row):
    path = folder / "bad.jsonl"
    path.write_text(row + "\n")
    with pytest.raises(ConfigError, match=r"(line 1 of|the manifest) .*bad\.jsonl") as told:
        read_manifest(str(path))
    assert "\n" not in str(told.value)


def test_a_time_that_cannot_be_makes_no_clips_without_end(tmp_path):
    """One of four pictures is said to be shown after thirty years."""
    with av.open(str(tmp_path / "v.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width, stream.pix_fmt = 64, 64, "bgr0"
        for time, pixels in zip([0, 1, 2, 10**10], gradient(4, 64, 64), strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="bgr0")
            frame.pts, frame.time_base = time, 1 / stream.codec_context.framerate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(ConfigError, match=r"is damaged in packet 4, which is said to end after 1e\+09 seconds"):
        probe(str(tmp_path / "v.mkv"))


def test_a_manifest_without_a_clip_is_refused(folder):
    path = write_csv(folder / "short.csv", ["wide.mp4,x"])
    with pytest.raises(ConfigError, match="gives no clip of 500 frames"):
        open_clips(VideoData(path, frames=500), MODEL)


def test_another_file_of_the_same_name_is_another_clip(folder, tmp_path):
    shutil.copy(folder / "wide.mp4", tmp_path / "clip.mp4")
    data = VideoData(write_csv(tmp_path / "one.csv", ["clip.mp4,x"]), frames=17)
    before = open_clips(data, MODEL).identity
    os.utime(tmp_path / "clip.mp4", (1, 1))
    assert open_clips(data, MODEL).identity == before
    with (tmp_path / "clip.mp4").open("ab") as file:
        file.write(bytes(8))
    assert open_clips(data, MODEL).identity != before


def test_videos_go_to_the_bucket_of_the_nearest_shape(manifest):
    assert bucket(1080, 1920, MODEL, "144p") == (144, 256)
    assert bucket(1920, 1080, MODEL, "144p") == (256, 144)
    clips = open_clips(VideoData(manifest, frames=17, resolution="144p"), MODEL)
    assert len({tuple(shape) for shape in clips.shapes.tolist()}) == 2
    feed = batches(PixelSource(clips), 2, seed=0)
    shapes = {next(feed)["frames"].shape for _ in range(8)}
    assert shapes == {(2, *shape, 3) for shape in clips.shapes.tolist()}


def test_a_file_that_breaks_while_training_is_replaced_and_named(folder, tmp_path, capfd):
    for name in ("wide", "long"):
        (tmp_path / f"{name}.mp4").write_bytes((folder / f"{name}.mp4").read_bytes())
    data = VideoData(write_csv(tmp_path / "clips.csv", ["wide.mp4,x", "long.mp4,y"]), frames=17)
    source = PixelSource(open_clips(data, MODEL))
    expected = source.draw(2, np.random.default_rng(0))["frames"]
    (tmp_path / "wide.mp4").write_bytes(b"broken")
    for _ in range(2):
        np.testing.assert_array_equal(source.draw(1, np.random.default_rng(0))["frames"], expected)
    assert capfd.readouterr().err.count("skipped (the 1. clip)") == 1
    (tmp_path / "long.mp4").write_bytes(b"broken")
    with pytest.raises(ConfigError, match="no clip could be read, 6 tries"):
        source.draw(1, np.random.default_rng(0))


class OneBadFilm:
    """Clips of a long film that is damaged, and of another one; which of them have been asked for."""

    starts = 1

    def __init__(self):
        self.shapes, self.asked = np.tile([17, 8, 8], (300, 1)), []

    def __len__(self):
        return len(self.shapes)

    def name(self, index):
        return "bad.mp4" if index < 299 else "good.mp4"

    def frames(self, index, first=0, count=None):
        self.asked.append(index)
        if index < 299:
            raise ConfigError("bad.mp4 is damaged")
        return np.full((17, 8, 8, 3), index % 256, np.uint8)


def test_a_damaged_film_of_many_clips_ends_no_training():
    clips = OneBadFilm()
    frames = PixelSource(clips).draw(5, np.random.default_rng(0))["frames"]
    assert (frames == 299 % 256).all() and clips.asked == [5, 299]


def test_a_lone_film_with_a_bad_part_is_read_on(monkeypatch):
    monkeypatch.setattr(OneBadFilm, "name", lambda *_: "film.mp4")
    clips = OneBadFilm()
    frames = PixelSource(clips).draw(297, np.random.default_rng(0))["frames"]
    assert (frames == 299 % 256).all() and clips.asked == [297, 298, 299]


def test_an_index_is_kept_while_it_grows(folder, tmp_path, monkeypatch):
    """A kill gives no time to keep it at the end."""
    kept = []
    monkeypatch.setattr(manifest_module, "KEPT_EACH", 1)
    monkeypatch.setattr(manifest_module, "_keep_index", lambda _, infos, __: kept.append(len(infos)))
    index_files(tmp_path / "clips.csv", [str(folder / "wide.mp4"), str(folder / "long.mp4")])
    assert kept == [1, 2, 2]


def test_of_several_processes_one_looks_into_the_files(manifest, monkeypatch):
    """And the others read what it has kept."""
    done = []
    monkeypatch.setattr(sources.jax, "process_count", lambda: 2)
    monkeypatch.setattr(sources, "open_clips", lambda data, model: done.append("open") or open_clips(data, model))
    monkeypatch.setattr(sources, "on_first", lambda action: done.append("first") or action())
    monkeypatch.setattr(sources, "check_agreed", lambda what, value: done.append("agreed"))
    clips = sources.agreed_clips(VideoData(manifest, frames=17), MODEL)
    assert done == ["first", "open", "open", "agreed"]
    assert clips.identity == open_clips(VideoData(manifest, frames=17), MODEL).identity


def test_captions_of_which_cleaning_leaves_nothing_are_refused(tmp_path, folder):
    (tmp_path / "clips.csv").write_text(f"path,caption\n{folder}/long.mp4,a cat\n{folder}/long.mp4,漢字漢字\n")
    with pytest.raises(ConfigError, match=r"nothing is left of the caption of .*long\.mp4"):
        sources.agreed_clips(VideoData(str(tmp_path / "clips.csv"), frames=17), MODEL)
