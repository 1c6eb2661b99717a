"""Clips from and to files; misuse gets one clear line."""

import os
import re
import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image
from support.small_videos import write_lossless

from pavdm_jax.errors import ConfigError
from pavdm_jax.video import clips, images
from pavdm_jax.video.clips import pad_start, probe, read_video
from pavdm_jax.video.writer import VideoWriter


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


# --- reading ----------------------------------------------------------------------------------------------------------


def test_every_pixel_of_a_lossless_video_of_odd_size(tmp_path):
    frames = clip(5, 31, 47)
    write_lossless(tmp_path / "video.mp4", frames)
    np.testing.assert_array_equal(read_video(tmp_path / "video.mp4"), frames)


def test_read_part_of_a_video(tmp_path):
    frames = clip(40)
    write_lossless(tmp_path / "video.mp4", frames)
    np.testing.assert_array_equal(read_video(tmp_path / "video.mp4", 15, 20), frames[15:20])
    np.testing.assert_array_equal(read_video(tmp_path / "video.mp4", 38, 99), frames[38:])
    with pytest.raises(ConfigError, match="only 40 frames"):
        read_video(tmp_path / "video.mp4", 40)
    with pytest.raises(ConfigError, match="start < stop"):
        read_video(tmp_path / "video.mp4", 5, 5)


def test_frames_that_are_resized_as_they_come_are_those_resized_at_the_end_in_less_memory(tmp_path):
    path = tmp_path / "video.mp4"
    write(path, clip(60, 320, 480))

    def traced(**options):
        tracemalloc.start()
        frames = read_video(path, **options)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return frames, peak

    whole, much = traced()
    small, little = traced(size=(40, 64))
    np.testing.assert_array_equal(small, images.resize_crop(whole, 40, 64))
    assert little < 0.1 * much
    Image.fromarray(whole[0]).save(tmp_path / "picture.png")
    np.testing.assert_array_equal(read_video(tmp_path / "picture.png", size=(40, 64)), small[:1])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"><circle r="10"/></svg>'),
        ("program.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n"),
        ("cut.tiff", b"II*\x00\x08\x00\x00\x00\xff\xff" + b"\x00\x01" * 30),
        ("cut.gif", b"GIF89a\x10\x00\x10\x00\xf7\x00\x00\xff"),
    ],
)
def test_files_of_other_kinds_are_refused_in_a_line(tmp_path, monkeypatch, name, content):
    """PostScript would be run by a program (Ghostscript) if Pillow were not told which formats to expect."""
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *a, **k: pytest.fail("a program is run"))
    (tmp_path / name).write_bytes(content)
    for read in (read_video, probe):
        with pytest.raises(ConfigError, match=name):
            read(str(tmp_path / name))


def test_read_pictures(tmp_path):
    frame = clip(1)[0]
    images.write_png(tmp_path / "a.png", frame)
    assert os.listdir(tmp_path) == ["a.png"]
    np.testing.assert_array_equal(read_video(tmp_path / "a.png"), frame[None])
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying down, shown a quarter turn clockwise
    Image.fromarray(frame).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_video(tmp_path / "turned.png")[0], np.rot90(frame, -1))
    Image.fromarray(frame[..., 0]).save(tmp_path / "grey.png")
    assert read_video(tmp_path / "grey.png").shape == (1, 32, 48, 3)
    Image.fromarray((np.arange(64, dtype=np.uint16) * 1040).reshape(8, 8)).save(tmp_path / "deep.png")  # 16 bits
    np.testing.assert_array_equal(read_video(tmp_path / "deep.png")[0, ..., 0].ravel(), np.arange(64) * 1040 // 256)
    Image.fromarray(np.ones((8, 8), np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(ConfigError, match=r"float\.tiff has pixels of 32 bits"):
        read_video(tmp_path / "float.tiff")
    with pytest.raises(ConfigError, match="picture"):
        read_video(tmp_path / "a.png", 1)


def test_read_turned_video(tmp_path):
    frames = clip(3)
    write_lossless(tmp_path / "video.mp4", frames)
    data = (tmp_path / "video.mp4").read_bytes()
    one, zero = (1 << 16).to_bytes(4, "big"), bytes(4)
    upright = one + zero * 3 + one
    clockwise = zero + one + zero + (-(1 << 16)).to_bytes(4, "big", signed=True) + zero
    track = data.index(upright, data.index(b"tkhd"))
    (tmp_path / "phone.mp4").write_bytes(data[:track] + clockwise + data[track + len(upright) :])
    np.testing.assert_array_equal(read_video(tmp_path / "phone.mp4"), np.rot90(frames, -1, axes=(1, 2)))


def test_files_that_cannot_be_read(tmp_path, monkeypatch):
    write(tmp_path / "video.mp4", clip(40))
    whole = (tmp_path / "video.mp4").read_bytes()
    images.write_png(tmp_path / "picture.png", clip(1)[0])
    (tmp_path / "cut.png").write_bytes((tmp_path / "picture.png").read_bytes()[:200])
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 3 // 4])
    (tmp_path / "head.mp4").write_bytes(whole[:100])
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "text.txt").write_text("no video\n" * 20)
    (tmp_path / "empty.mp4").touch()
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    for name, message in {
        "missing.mp4": "does not exist",
        ".": "is a folder",
        "cut.png": "damaged or cut off",
        "cut.mp4": "cut off",
        "head.mp4": "cut off",
        "noise.mp4": "cannot be read as a video",
        "text.txt": "cannot be read|no pictures|no frames",
        "empty.mp4": "cannot be read as a video",
        "sound.wav": "no pictures",
    }.items():
        with pytest.raises(ConfigError, match=message) as error:
            read_video(tmp_path / name)
        assert "\n" not in str(error.value) and re.search(re.escape(str(tmp_path)), str(error.value))
    monkeypatch.setattr(clips, "MAX_BYTES", 30 * 32 * 48 * 3)
    with pytest.raises(ConfigError, match="memory"):
        read_video(tmp_path / "video.mp4")
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)
    for name in ("video.mp4", "picture.png"):
        with pytest.raises(ConfigError, match="32x48"):
            read_video(tmp_path / name)


# --- shaping, pictures, GIFs ------------------------------------------------------------------------------------------


def test_resize_crop_keeps_the_centre_and_the_proportions():
    frames = np.zeros((2, 40, 80, 3), np.uint8)
    frames[:, :, 20:60] = 200
    square = images.resize_crop(frames, 20, 20)
    assert square.shape == (2, 20, 20, 3)
    np.testing.assert_array_equal(square[:, :, 4:-4], 200)
    np.testing.assert_array_equal(square, square[:, :, ::-1])
    np.testing.assert_array_equal(images.resize_crop(frames.transpose(0, 2, 1, 3), 80, 80)[:, 40, 40], 200)
    assert images.resize_crop(frames, 40, 80) is frames
    assert images.resize_crop(frames, 7, 33).shape == (2, 7, 33, 3)


def test_resize_crop_does_not_alias():
    stripes = np.zeros((1, 64, 64, 3), np.uint8)
    stripes[:, :, ::2] = 200
    small = images.resize_crop(stripes, 16, 16)[:, :, 2:-2].astype(int)
    assert np.abs(small - 100).max() < 10


def test_a_short_start_clip_is_held_on_its_first_frame():
    frames = clip(16)
    padded, note = pad_start(frames, 17)
    np.testing.assert_array_equal(padded, frames[[0, *range(16)]])
    assert note == "the start clip has 16 frames; its first one is held for 1 more, to make 17"


def test_contact_sheet():
    frames = [np.full((4, 6, 3), n, np.uint8) for n in range(5)]
    sheet = images.contact_sheet(frames, columns=3, gap=2)
    assert sheet.shape == (10, 22, 3)
    assert sheet[0, 0, 0] == 0 and sheet[3, 21, 0] == 2 and sheet[6, 0, 0] == 3 and sheet[6, 21, 0] == 255
    assert (sheet[4:6] == 255).all()
    assert images.contact_sheet(frames[:1], columns=3).shape == (4, 6, 3)
    with pytest.raises(ConfigError):
        images.contact_sheet([], columns=3)


def test_gif_streams_every_second_frame(tmp_path):
    frames = clip(51)
    images.write_gif(tmp_path / "a.gif", (frames[n : n + 17] for n in range(0, 51, 17)), fps=24)
    assert os.listdir(tmp_path) == ["a.gif"]
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames == 26 and image.info["loop"] == 0
        durations = []
        for number in range(26):
            image.seek(number)
            durations.append(image.info["duration"])
    assert sum(durations) / 1000 == pytest.approx(26 / 12, abs=0.1)
    assert psnr(read_video(tmp_path / "a.gif"), frames[::2]) > 30


def test_gif_leaves_nothing_when_it_fails(tmp_path):
    def broken():
        yield clip(5)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        images.write_gif(tmp_path / "a.gif", broken(), fps=24)
    with pytest.raises(ConfigError, match="no frame"):
        images.write_gif(tmp_path / "a.gif", [], fps=24)
    with pytest.raises(ConfigError, match="fps"):
        images.write_gif(tmp_path / "a.gif", [clip(2)], fps=24, gif_fps=60)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("fps", "numbers"), [(24, range(0, 40, 2)), (16, range(0, 40, 3)), (47.9, range(40)), (90, range(40))]
)
def test_of_a_faster_video_the_frames_of_the_moments_are_read(tmp_path, fps, numbers):
    frames = clip(40, 32, 48)
    with av.open(str(tmp_path / "fast.mp4"), "w") as container:
        stream = container.add_stream("libx264rgb", rate=48, options={"crf": "0"})
        stream.height, stream.width, stream.pix_fmt = 32, 48, "rgb24"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    numbers = list(numbers)
    np.testing.assert_array_equal(read_video(tmp_path / "fast.mp4", fps=fps), frames[numbers])
    np.testing.assert_array_equal(read_video(tmp_path / "fast.mp4", 2, 9, fps=fps), frames[numbers[2:9]])


def test_films_whose_pixels_are_no_squares_are_stretched(tmp_path):
    with av.open(str(tmp_path / "wide.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = 2
        for pixels in clip(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    assert read_video(tmp_path / "wide.mp4").shape == (5, 32, 96, 3)
    assert (probe(str(tmp_path / "wide.mp4")).height, probe(str(tmp_path / "wide.mp4")).width) == (32, 96)


def test_frames_that_last_longer_are_shown_as_long(tmp_path):
    """Twenty-four frames in half a second, of which the last one stays until second 1.25, when another one comes."""
    with av.open(str(tmp_path / "uneven.mp4"), "w") as container:
        stream = container.add_stream("libx264rgb", rate=48, options={"crf": "0"})
        stream.height, stream.width, stream.pix_fmt = 16, 16, "rgb24"
        for number, at in enumerate([*range(24), 60]):
            frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), 10 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = at, Fraction(1, 48)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    shown = read_video(tmp_path / "uneven.mp4", fps=12)[:, 0, 0, 0].tolist()
    assert shown[:6] == [0, 40, 80, 120, 160, 200]
    assert shown[6:15] == [230] * 9 and shown[15] == 240


def test_transparent_pictures_are_on_white(tmp_path):
    pixels = np.full((16, 24, 4), 200, np.uint8)
    pixels[:8, :, 3], pixels[8:, :, 3] = 0, 255
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    picture = read_video(tmp_path / "picture.png")[0]
    assert (picture[:8] == 255).all() and (picture[8:] == 200).all()


def test_films_of_a_high_dynamic_range_are_warned_of(tmp_path, monkeypatch):
    write(tmp_path / "video.mp4", clip(5))
    monkeypatch.setattr(clips, "HDR", (1, 2))  # as if usual films were
    with pytest.warns(UserWarning, match=r"video\.mp4 has colours of a high dynamic range"):
        read_video(tmp_path / "video.mp4")
