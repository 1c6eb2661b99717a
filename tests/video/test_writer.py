"""The growing video: it plays at any moment, resumes bit for bit, and misuse gets one clear line."""

import errno
import os

import av
import numpy as np
import pytest

from pavdm_jax.errors import ConfigError
from pavdm_jax.outputs import check_output
from pavdm_jax.video import writer as video_writer
from pavdm_jax.video.clips import read_video
from pavdm_jax.video.writer import VideoWriter, read_comment


def clip(num_frames: int, height: int = 32, width: int = 48, first: int = 0) -> np.ndarray:
    """A smooth moving pattern; frame n does not depend on where the clip begins."""
    n, y, x = np.ogrid[first : first + num_frames, :height, :width]
    waves = [np.sin(0.1 * x + 0.2 * n + 0 * y), np.cos(0.15 * y - 0.1 * n + 0 * x), np.sin(0.08 * (x + y) + 0.3 * n)]
    return np.stack([(127 + 100 * wave).astype(np.uint8) for wave in waves], axis=-1)


def write(path, frames, fps=24, cut=17, **options):
    with VideoWriter(path, fps, **options) as writer:
        for start in range(0, len(frames), cut):
            writer.write(frames[start : start + cut])
    return writer


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


@pytest.mark.parametrize("fps", [24, 23.976, 8])
def test_finished_video_has_every_frame_at_its_time(tmp_path, fps):
    frames = clip(40)
    write(tmp_path / "deep" / "er" / "video.mp4", frames, fps)
    assert os.listdir(tmp_path / "deep" / "er") == ["video.mp4"]
    with av.open(str(tmp_path / "deep" / "er" / "video.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.frames == 40
        assert float(stream.average_rate) == pytest.approx(fps, abs=1e-3)
        assert container.duration / 1e6 == pytest.approx(40 / fps, abs=2e-3)
        times = [frame.time for frame in container.decode(stream)]
    np.testing.assert_allclose(times, np.arange(40) / fps, atol=2e-3)
    assert psnr(read_video(tmp_path / "deep" / "er" / "video.mp4"), frames) > 30


def test_colours_survive(tmp_path):
    frames = np.full((3, 32, 32, 3), (200, 30, 60), np.uint8)
    write(tmp_path / "video.mp4", frames)
    assert np.abs(read_video(tmp_path / "video.mp4").astype(int) - frames).max() <= 4


def test_growing_video_plays_after_every_write(tmp_path):
    frames, before = clip(51), b""
    with VideoWriter(tmp_path / "video.mp4", 24) as writer:
        for start in (0, 17, 34):
            writer.write(frames[start : start + 17])
            data = writer.partial_path.read_bytes()
            assert data.startswith(before)
            assert writer.position[:2] == (start + 17, len(data))
            with av.open(str(writer.partial_path)) as container:
                stream = container.streams.video[0]
                assert container.duration / 1e6 == pytest.approx((start + 17) / 24, abs=1e-3)
                times = [frame.time for frame in container.decode(stream)]
            np.testing.assert_allclose(times, np.arange(start + 17) / 24, atol=1e-4)
            assert psnr(read_video(writer.partial_path), frames[: start + 17]) > 30
            assert not writer.path.exists()
            before = data
    numbers = [int.from_bytes(part[4:8], "big") for part in before.split(b"mfhd")[1:]]  # after version and flags
    assert len(numbers) == 3 and numbers == sorted(set(numbers))


@pytest.mark.parametrize("kill_after", [0, 1, 2, 3])
def test_resumed_video_is_bit_for_bit_the_uninterrupted_one(tmp_path, kill_after):
    frames = clip(51)
    with VideoWriter(tmp_path / "whole.mp4", 24) as whole:
        for start in (0, 17, 34):
            whole.write(frames[start : start + 17])
        fragments = whole.partial_path.read_bytes()

    killed = VideoWriter(tmp_path / "killed.mp4", 24)
    for number in range(kill_after):
        killed.write(frames[17 * number :][:17])
    with open(killed.partial_path, "ab") as file:
        file.write(fragments[:1000])  # a torn write
    position = tuple(killed.position)
    killed._file.close()  # as the kernel does after kill -9: nothing else runs

    with VideoWriter(tmp_path / "killed.mp4", 24, resume=position) as resumed:
        assert resumed.position == position
        for number in range(kill_after, 3):
            resumed.write(frames[17 * number :][:17])
        assert resumed.partial_path.read_bytes() == fragments
    assert (tmp_path / "killed.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["killed.mp4", "whole.mp4"]


@pytest.mark.parametrize("place", [100, 1500, -1])
def test_a_partial_video_with_a_flipped_bit_is_not_resumed(tmp_path, place):
    with pytest.raises(RuntimeError), VideoWriter(tmp_path / "video.mp4", 24) as writer:
        writer.write(clip(17))
        raise RuntimeError
    data = bytearray(writer.partial_path.read_bytes())
    data[place] ^= 4
    writer.partial_path.write_bytes(data)
    with pytest.raises(ConfigError, match="has changed since it was written"):
        VideoWriter(tmp_path / "video.mp4", 24, resume=writer.position)
    assert writer.partial_path.read_bytes() == data


def test_copied_frames_are_the_stored_ones_and_more_can_follow(tmp_path):
    write(tmp_path / "old.mp4", clip(51))
    with VideoWriter(tmp_path / "new.mp4", 24) as writer:
        writer.copy(tmp_path / "old.mp4", 34)
        writer.write(clip(17, first=34))
    assert (tmp_path / "new.mp4").read_bytes() == (tmp_path / "old.mp4").read_bytes()


def foreign(path):
    """A video of the same size and rate by another encoder's settings."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"preset": "ultrafast", "profile": "baseline"})
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        for pixels in clip(34):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


def test_what_cannot_be_continued_is_not_copied(tmp_path):
    write(tmp_path / "old.mp4", clip(51))
    write(tmp_path / "slow.mp4", clip(51), fps=12)
    foreign(tmp_path / "foreign.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    for name, frames, message in [
        ("old.mp4", 20, "cannot be cut after 20 frames"),
        ("old.mp4", 68, "cannot be cut after 68 frames"),
        ("slow.mp4", 17, "encoded with other settings"),
        ("foreign.mp4", 34, "encoded with other settings"),
        ("text.mp4", 17, "cannot be read as a video"),
        ("absent.mp4", 17, "cannot be read as a video"),
    ]:
        with pytest.raises(ConfigError, match=message), VideoWriter(tmp_path / "new.mp4", 24) as writer:
            writer.copy(tmp_path / name, frames)


def test_two_writers_of_one_file_are_refused(tmp_path):
    with VideoWriter(tmp_path / "video.mp4", 24) as first:
        first.write(clip(17))
        with pytest.raises(ConfigError, match="is being written by another process"):
            VideoWriter(tmp_path / "video.mp4", 24)
        first.write(clip(17, first=17))
    assert len(read_video(tmp_path / "video.mp4")) == 34
    write(tmp_path / "video.mp4", clip(3))
    assert len(read_video(tmp_path / "video.mp4")) == 3


def test_a_link_in_place_of_the_partial_file_is_not_followed(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "video.partial.mp4").symlink_to(tmp_path / "mine.txt")
    with pytest.raises(ConfigError, match="symbolic link"):
        VideoWriter(tmp_path / "video.mp4", 24)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_name_that_looks_like_an_address_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("pipe:1.mp4", clip(3), comment="said")
    assert os.listdir(tmp_path) == ["pipe:1.mp4"]
    assert read_comment("pipe:1.mp4") == "said"
    assert len(read_video("pipe:1.mp4")) == 3


def test_fragments_depend_on_their_own_frames_only(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", 24) as a, VideoWriter(tmp_path / "b.mp4", 24) as b:
        a.write(clip(17))
        b.write(255 - clip(17))
        ends = a.position.num_bytes, b.position.num_bytes
        for writer in (a, b):
            writer.write(clip(17, first=17))
        assert a.partial_path.read_bytes()[ends[0] :] == b.partial_path.read_bytes()[ends[1] :]


@pytest.mark.parametrize("interrupt", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_video_stays_playable(tmp_path, interrupt):
    with pytest.raises(interrupt), VideoWriter(tmp_path / "video.mp4", 24) as writer:
        writer.write(clip(17))
        raise interrupt
    assert os.listdir(tmp_path) == ["video.partial.mp4"]
    assert len(read_video(writer.partial_path)) == 17


def test_nothing_is_left_when_nothing_was_written(tmp_path):
    with pytest.raises(RuntimeError), VideoWriter(tmp_path / "video.mp4", 24):
        raise RuntimeError
    with pytest.raises(ConfigError, match="no frame"), VideoWriter(tmp_path / "video.mp4", 24) as writer:
        writer.write(clip(0))
    assert os.listdir(tmp_path) == []


def test_an_older_video_is_replaced_only_at_the_end(tmp_path):
    (tmp_path / "video.mp4").write_bytes(b"older")
    with VideoWriter(tmp_path / "video.mp4", 24) as writer:
        writer.write(clip(3))
        assert (tmp_path / "video.mp4").read_bytes() == b"older"
    assert len(read_video(tmp_path / "video.mp4")) == 3


@pytest.mark.parametrize("where", ["partial", "index"])
def test_full_disk(tmp_path, monkeypatch, where):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "partial":
        with (
            pytest.raises(ConfigError, match=r"video\.partial\.mp4.*full.*MiB free"),
            VideoWriter(tmp_path / "video.mp4", 24) as writer,
        ):
            writer.write(clip(17))
            monkeypatch.setattr(video_writer.os, "fsync", full)
            writer.write(clip(17))
        assert len(read_video(writer.partial_path)) == 17
    else:  # no room for the second copy: the fragments stay, and can be resumed
        writer = VideoWriter(tmp_path / "video.mp4", 24, comment="what made it")
        writer.write(clip(17))
        monkeypatch.setattr(video_writer.av, "open", lambda *a, **k: full())
        with pytest.raises(ConfigError, match=r"video\.mp4.*full.*make room and resume"):
            writer.close()
        monkeypatch.undo()
        assert os.listdir(tmp_path) == ["video.partial.mp4"]
        assert len(read_video(writer.partial_path)) == 17
        VideoWriter(tmp_path / "video.mp4", 24, comment="what made it", resume=writer.position).close()
        assert os.listdir(tmp_path) == ["video.mp4"]
        assert read_comment(tmp_path / "video.mp4") == "what made it"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fps": 0}, "fps 0"),
        ({"fps": float("nan")}, "fps nan"),
        ({"crf": 52}, "crf 52"),
        ({"crf": 0}, "crf 0 must be 1 to 51"),
        ({"resume": (17, 999, "")}, "0 bytes instead of at least 999"),
        ({"resume": (17, 0, "")}, "cannot be resumed"),
    ],
)
def test_writer_settings_are_checked_first(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        VideoWriter(tmp_path / "video.mp4", **({"fps": 24} | options))
    assert os.listdir(tmp_path) == []


def test_writer_refuses_frames_it_cannot_write(tmp_path):
    with pytest.raises(ConfigError, match=r"32x47 .* 32x46 or 32x48"), VideoWriter(tmp_path / "v.mp4", 24) as writer:
        writer.write(clip(2, 32, 47))
    with pytest.raises(ConfigError, match="uint8"), VideoWriter(tmp_path / "v.mp4", 24) as writer:
        writer.write(clip(2).astype(np.float32))
    with (
        pytest.raises(ConfigError, match="16x16 cannot follow frames of 32x48"),
        VideoWriter(tmp_path / "v.mp4", 24) as writer,
    ):
        writer.write(clip(2))
        writer.write(clip(2, 16, 16))


def test_resuming_another_kind_of_video_is_refused(tmp_path):
    with pytest.raises(RuntimeError), VideoWriter(tmp_path / "video.mp4", 24) as writer:
        writer.write(clip(2))
        raise RuntimeError
    with (
        pytest.raises(ConfigError, match="another size or fps"),
        VideoWriter(tmp_path / "video.mp4", 24, resume=writer.position) as resumed,
    ):
        resumed.write(clip(2, 16, 16))
    assert writer.position[:2] == (2, writer.partial_path.stat().st_size)


def test_check_output(tmp_path):
    assert check_output(tmp_path / "new" / "video.mp4").parent.is_dir()
    (tmp_path / "file").touch()
    (tmp_path / "folder.mp4").mkdir()
    for path, message in [
        ("video.avi", r"end in \.mp4"),
        ("video", r"end in \.mp4"),
        ("folder.mp4", "is a folder"),
        ("file/video.mp4", "cannot be written"),
        ("x" * 230 + ".mp4", "longer than 220 bytes"),
    ]:
        with pytest.raises(ConfigError, match=message):
            check_output(tmp_path / path)
    with pytest.raises(ConfigError, match="cannot be written"):
        check_output("/proc/video.mp4")
