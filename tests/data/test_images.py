"""Images among the videos of a manifest: clips of one latent frame, in batches of their own."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
from PIL import Image
from support.small_videos import gradient, write_csv, write_examples
from support.tiny_model import tiny_model

from pavdm_jax.config import tiny
from pavdm_jax.data.clips import open_clips
from pavdm_jax.data.config import LatentData, TfdsData, VideoData
from pavdm_jax.data.encoder import Encoder
from pavdm_jax.data.latent_cache import LatentCache
from pavdm_jax.data.latent_writer import CacheOptions, write_cache
from pavdm_jax.data.loader import batches
from pavdm_jax.data.manifest import read_manifest
from pavdm_jax.data.sources import PixelSource, open_feed
from pavdm_jax.errors import ConfigError
from pavdm_jax.video.images import write_gif

MODEL = tiny()  # 16 by 24 pixels
IMAGES = 6


def write_images(folder):
    """Rows of images of 64 by 96 pixels, of several formats."""
    names = [f"picture{n}.{('png', 'JPG', 'webp')[n % 3]}" for n in range(IMAGES)]
    for n, name in enumerate(names):
        Image.fromarray(gradient(1, 64, 96, seed=n)[0]).save(folder / name)
    return [f"{name},picture {n}" for n, name in enumerate(names)]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Of 8 clips of 17 frames, 4 of 34, and 6 images."""
    folder = tmp_path_factory.mktemp("mixed")
    write_examples(folder)
    videos = (folder / "clips.csv").read_text().splitlines()[1:]
    return write_csv(folder / "clips.csv", [*write_images(folder), *videos])


def lengths(feed, name, steps=20):
    return [batch[name].shape[1] for batch in itertools.islice(feed, steps)]


def test_images_are_clips_of_one_frame_whose_rate_is_told_to_be_120(manifest):
    clips = open_clips(VideoData(manifest, frames=17), MODEL)
    assert clips.shapes.tolist() == IMAGES * [[1, 16, 24]] + 8 * [[17, 16, 24]]
    assert clips.fps(0) == 120 and clips.fps(IMAGES) == 24 and clips.captions(1) == ["picture 1"]
    expected = gradient(1, 64, 96, seed=0).reshape(1, 16, 4, 24, 4, 3).mean((2, 4))
    assert clips.frames(0).shape == (1, 16, 24, 3)
    assert np.abs(clips.frames(0) - expected)[:, 1:-1, 1:-1].mean() < 6  # resized by another filter


@pytest.mark.parametrize("rows", [range(2), [1]])
def test_a_batch_is_all_images_or_all_videos_and_depends_on_the_step_alone(manifest, rows):
    source = PixelSource(open_clips(VideoData(manifest, frames=17), MODEL))

    def found(start, steps):
        feed = batches(source, 2, seed=3, start_step=start, rows=rows, image_share=0.3)
        return [batch["frames"] for batch in itertools.islice(feed, steps)]

    whole = found(0, 20)
    of_images = [frames.shape[1] == 1 for frames in whole]
    assert sum(of_images) == 6  # 0.3 of 20
    assert all(2 <= sum(of_images[n : n + 10]) <= 4 for n in range(10))  # spread evenly
    for ours, theirs in zip(found(7, 13), whole[7:], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_each_image_and_each_clip_is_seen_once_an_epoch(manifest):
    source = PixelSource(open_clips(VideoData(manifest, frames=17), MODEL))
    feed = batches(source, 2, seed=0, image_share=0.5)
    seen = [sample for batch in itertools.islice(feed, 8) for sample in batch["frames"]]
    assert len({frames.tobytes() for frames in seen if len(frames) == 17}) == 8
    feed = batches(source, 2, seed=0, image_share=0.5)
    images = [batch["frames"] for batch in itertools.islice(feed, 6) if batch["frames"].shape[1] == 1]
    assert len({image.tobytes() for batch in images for image in batch}) == IMAGES


def test_images_are_left_out_and_told_where_no_share_is_given(manifest, capfd):
    source = PixelSource(open_clips(VideoData(manifest, frames=17), MODEL))
    assert set(lengths(batches(source, 2, seed=0), "frames")) == {17}
    assert "the data has 6 images, which are left out: image_share is 0" in capfd.readouterr().err


def test_of_single_frames_images_are_like_videos(manifest):
    """As for the spatial part of the VAE; also without any video."""
    source = PixelSource(open_clips(VideoData(manifest, frames=1), MODEL))
    assert not source.image_groups and len(source.groups) == 1
    with pytest.raises(ConfigError, match=r"image_share is 0\.5, but the data has no images beside longer clips"):
        batches(source, 2, seed=0, image_share=0.5)


def test_images_go_to_the_bucket_of_the_nearest_shape(manifest):
    source = PixelSource(open_clips(VideoData(manifest, frames=17, resolution="144p"), MODEL))
    feed = batches(source, 2, seed=0, image_share=0.5)
    shapes = {batch["frames"].shape[1:3] for batch in itertools.islice(feed, 20)}
    assert len(source.groups) == 2 and len(source.image_groups) == 1
    assert {frames for frames, _ in shapes} == {1, 17}


def test_latents_of_images_are_the_same_from_a_cache_or_encoded_on_the_way(manifest, tmp_path):
    model = tiny_model()
    clips = open_clips(VideoData(manifest, frames=34), MODEL)
    write_cache(clips, Encoder(model), tmp_path / "latents", CacheOptions(caption_features=True, batch_size=2))
    assert sorted(LatentCache(tmp_path / "latents").shapes[:, 0].tolist()) == IMAGES * [1] + 4 * [10]
    found = []
    for data in (
        LatentData(str(tmp_path / "latents"), image_share=0.5),
        VideoData(manifest, frames=34, image_share=0.5),
        VideoData(manifest, frames=34, cache=False, image_share=0.5),
    ):
        feed = open_feed(data, model, 1, tmp_path, text_is_frozen=True)
        made = batches(feed.source, 2, seed=5, image_share=data.image_share)
        found.append(list(itertools.islice(map(feed.finish, made), 6)))
    assert [batch["latents"].shape[1] for batch in found[0]] == [5, 1, 5, 1, 5, 1]
    assert [batch["fps"].tolist() for batch in found[0][:2]] == [[24.0, 24.0], [120.0, 120.0]]
    for other in found[1:]:
        for ours, theirs in zip(found[0], other, strict=True):
            np.testing.assert_allclose(ours["latents"], theirs["latents"], rtol=2e-3, atol=2e-3)
            np.testing.assert_array_equal(ours["ids"], theirs["ids"])


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_images_that_cannot_be_read_are_skipped_and_named(tmp_path, capfd):
    write_examples(tmp_path)
    rows = write_images(tmp_path)
    whole = (tmp_path / "picture0.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "noise.jpg").write_bytes(b"no image")
    moving = [Image.fromarray(frame) for frame in gradient(41, 64, 96)[::20]]
    moving[0].save(tmp_path / "moves.webp", save_all=True, append_images=moving[1:])
    rows += [f"{name},x" for name in ("cut.png", "noise.jpg", "moves.webp", "long.mp4")]
    manifest = write_csv(tmp_path / "mixed.csv", rows)
    clips = open_clips(VideoData(manifest, frames=17), MODEL)
    assert len(clips) == IMAGES + 4
    told = capfd.readouterr().err
    assert "3 files or rows give no clip" in told
    assert "cut.png cannot be read as a picture" in told
    assert told.count("is no still image: it is damaged, of an unknown format, or animated") == 2
    kept = json.loads((tmp_path / "mixed.index.json").read_text())
    assert "animated" in clips.skipped[str(tmp_path / "moves.webp")] and str(tmp_path / "moves.webp") not in kept


def test_an_image_that_breaks_while_training_is_replaced_by_another_image(tmp_path, capfd):
    write_examples(tmp_path)
    manifest = write_csv(tmp_path / "mixed.csv", [*write_images(tmp_path), "long.mp4,x"])
    source = PixelSource(open_clips(VideoData(manifest, frames=17), MODEL))
    expected = source.draw(4, np.random.default_rng(0))["frames"]
    (tmp_path / "picture3.png").write_bytes(b"broken")
    np.testing.assert_array_equal(source.draw(3, np.random.default_rng(0))["frames"], expected)
    assert "skipped (the 1. clip)" in capfd.readouterr().err


def test_a_gif_that_moves_is_a_video(tmp_path):
    write_gif(tmp_path / "moves.gif", [gradient(30, 64, 96)], fps=24, gif_fps=24)
    clips = open_clips(VideoData(write_csv(tmp_path / "gif.csv", ["moves.gif,x"]), frames=17), MODEL)
    assert clips.shapes.tolist() == [[17, 16, 24]]


def test_images_alone_train_no_videos(tmp_path):
    manifest = write_csv(tmp_path / "images.csv", write_images(tmp_path))
    with pytest.raises(ConfigError, match="gives no clip of 17 frames: all 6 rows are images, too short or cannot"):
        open_clips(VideoData(manifest, frames=17), MODEL)
    assert len(open_clips(VideoData(manifest, frames=1), MODEL)) == IMAGES


@pytest.mark.parametrize("field", ["start", "end", "fps"])
def test_an_image_has_no_times(tmp_path, field):
    write_images(tmp_path)
    manifest = write_csv(tmp_path / "images.csv", ["picture1.JPG,x,1"], f"path,caption,{field}")
    with pytest.raises(ConfigError, match=rf"line 2.*picture1.JPG is an image, which has no {field}; leave it empty"):
        read_manifest(manifest)


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_of_images_is_below_1(share):
    for data in (VideoData("x.csv"), LatentData("x")):
        with pytest.raises(ConfigError, match="image_share is the share of batches that are of images"):
            dataclasses.replace(data, image_share=share)
    assert TfdsData("tfds:x").image_share == 0
