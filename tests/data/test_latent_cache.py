"""Latents computed once: shards, resuming, refusals, the same losses as without a cache, and the command."""

import dataclasses
import itertools
import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.nightly import at_night
from support.small_videos import write_csv, write_examples
from support.tiny_model import tiny_model

from pavdm_jax import cli, precompute, train
from pavdm_jax.checkpoints.fingerprint import vae_fingerprint
from pavdm_jax.checkpoints.model_folder import save_model
from pavdm_jax.config import TextConfig, WindowConfig, tiny
from pavdm_jax.data.check import check_data
from pavdm_jax.data.clips import open_clips
from pavdm_jax.data.config import LatentData, VideoData
from pavdm_jax.data.encoder import Encoder
from pavdm_jax.data.latent_cache import LatentCache
from pavdm_jax.data.latent_writer import CacheOptions, write_cache
from pavdm_jax.data.loader import batches
from pavdm_jax.data.sources import open_feed
from pavdm_jax.errors import ConfigError
from pavdm_jax.models.tokenizer import Tokenizer
from pavdm_jax.text.features import prompt_features
from pavdm_jax.training.config import UniformDiffusion
from pavdm_jax.training.denoising import denoising_loss

MODEL = tiny()  # 16 by 24 pixels


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_examples(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="module")
def encoder():
    return Encoder(tiny_model())


@pytest.fixture(scope="module")
def cached(manifest, encoder, tmp_path_factory):
    """A cache with caption features, written by two processes one after the other."""
    folder = tmp_path_factory.mktemp("latents") / "cache"
    clips = open_clips(VideoData(manifest, frames=34), MODEL)
    options = CacheOptions(caption_features=True, shard_size=2, batch_size=2)
    assert not write_cache(clips, encoder, folder, options, 0, 2)
    with pytest.raises(ConfigError, match="not complete"):
        LatentCache(folder)
    assert write_cache(clips, encoder, folder, options, 1, 2)
    return folder


def test_an_interruption_that_python_dropped_ends_the_writing_and_the_same_call_goes_on(manifest, encoder, tmp_path):
    clips, options = open_clips(VideoData(manifest, frames=34), MODEL), CacheOptions(shard_size=2)
    cli.INTERRUPTED.set()
    with pytest.raises(KeyboardInterrupt):
        write_cache(clips, encoder, tmp_path / "cache", options)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["cache.json"]
    assert write_cache(clips, encoder, tmp_path / "cache", options)


def test_a_cache_holds_the_latents_of_its_clips(cached, manifest, encoder):
    cache, clips = LatentCache(cached), open_clips(VideoData(manifest, frames=34), MODEL)
    assert len(cache) == len(clips) == 4
    for n in range(4):
        expected = np.asarray(encoder.latents(clips.frames(n)[None]))[0]
        np.testing.assert_allclose(cache.latents(n, 0, 10), expected, rtol=2e-3, atol=2e-3)
        assert cache.about(n) == {"captions": clips.captions(n), "fps": 24.0}
    np.testing.assert_allclose(cache.features(0, 0), encoder.features(["a wide clip"])[0], rtol=1e-2, atol=1e-3)


def test_all_that_was_left_out_is_told_once_for_each_file_row_and_clip(encoder, tmp_path, monkeypatch):
    """Two rows of one file are too short, two clips of one file cannot be read, one file is no video."""
    write_examples(tmp_path)
    rows = ["long.mp4,0,1", "long.mp4,1,2", "long.mp4,,", "wide.mp4,,", "noise.mp4,,"]
    manifest = write_csv(tmp_path / "rows.csv", [f"{row},a clip" for row in rows], "path,start,end,caption")
    clips = open_clips(VideoData(manifest, frames=34), MODEL)
    assert len(clips) == 3
    frames = clips.frames

    def damaged(index, *window):
        if clips.name(index).endswith("long.mp4"):
            raise ConfigError(f"damaged clip {index}")
        return frames(index, *window)

    monkeypatch.setattr(clips, "frames", damaged)
    assert write_cache(clips, encoder, tmp_path / "cache", CacheOptions(shard_size=2))
    cache = LatentCache(tmp_path / "cache")
    assert len(cache) == 1
    reasons = "\n".join(cache.skipped.values())
    assert len(cache.skipped) == 5
    for part in ("seconds 0 to 1", "seconds 1 to 2", "damaged clip 0", "damaged clip 1", "noise.mp4"):
        assert reasons.count(part) == 1


def test_an_interrupted_cache_goes_on_with_its_missing_shards(cached, manifest, encoder, tmp_path):
    clips = open_clips(VideoData(manifest, frames=34), MODEL)
    options = CacheOptions(caption_features=True, shard_size=2, batch_size=2)
    first = sorted(cached.glob("shard*"))[0]
    for name in ("cache.json", first.name):
        (tmp_path / name).write_bytes((cached / name).read_bytes())
    before = (tmp_path / first.name).stat().st_mtime_ns
    assert write_cache(clips, encoder, tmp_path, options)
    assert (tmp_path / first.name).stat().st_mtime_ns == before
    for path in cached.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_lost_shards_and_a_damaged_index_are_named_and_written_again(cached, manifest, encoder, tmp_path):
    clips = open_clips(VideoData(manifest, frames=34), MODEL)
    options = CacheOptions(caption_features=True, shard_size=2, batch_size=2)
    folder = shutil.copytree(cached, tmp_path / "cache")
    index = json.loads((folder / "index.json").read_text())
    (folder / index["shards"][1]["file"]).unlink()
    with pytest.raises(ConfigError, match=r"1 files .* are missing, first shard-00001.*; run the command that writes"):
        LatentCache(folder)
    assert write_cache(clips, encoder, folder, options)
    for damage in ({"shards": index["shards"]}, {"skipped": {}}, {"shards": [{}], "skipped": {}}, {"shards": 5}):
        (folder / "index.json").write_text(json.dumps(damage))
        with pytest.raises(ConfigError, match=r"index\.json is damaged; run the command that writes the latents again"):
            LatentCache(folder)
    for text in ("[]", "{"):
        (folder / "index.json").write_text(text)
        with pytest.raises(ConfigError, match=r"index\.json cannot be read"):
            LatentCache(folder)
    assert write_cache(clips, encoder, folder, options)
    for path in cached.iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes()


def test_a_flipped_bit_anywhere_in_a_shard_is_told(cached, tmp_path):
    """In values, in captions, in the list of clips and in the header; before, changed values were trained on."""
    folder = shutil.copytree(cached, tmp_path / "cache")
    shard = sorted(folder.glob("shard*"))[0]
    whole = shard.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    numbers = [n for n in range(4) if LatentCache(folder).places[n][0] == shard.name]
    for place in [
        0,
        20,
        whole.index(b"about"),
        whole.index(b"crc32"),
        whole.index(b"wide clip"),
        *np.linspace(header, len(whole) - 1, 20, dtype=int),
    ]:
        shard.write_bytes(whole[:place] + bytes([whole[place] ^ 64]) + whole[place + 1 :])
        os.utime(shard, ns=(place, place))  # it is another file
        cache = LatentCache(folder)
        with pytest.raises(ConfigError, match=rf"{shard.name} is damaged .*; delete it and index\.json") as told:
            for n in numbers:
                cache.latents(n, 0, 1), cache.features(n, 0), cache.about(n)
        assert "\n" not in str(told.value)


def test_latents_of_another_size_than_the_models_are_told(cached):
    check_data(LatentData(str(cached)), 5, MODEL)
    with pytest.warns(UserWarning, match=r"are of .* pixels, which is trained on, and not the model's 512x512"):
        check_data(LatentData(str(cached)), 5, dataclasses.replace(MODEL, height=512, width=512))


def test_an_index_that_does_not_fit_its_shards_is_told(cached, tmp_path):
    folder = shutil.copytree(cached, tmp_path / "cache")
    index = json.loads((folder / "index.json").read_text())
    index["shards"][0]["shapes"][0][0] += 40
    (folder / "index.json").write_text(json.dumps(index))
    with pytest.raises(ConfigError, match=r"is damaged \(the latents of clip .* as indexed\)"):
        LatentCache(folder).latents(0, 30, 35)


def test_caption_features_of_another_precision_of_products_are_not_used(cached, manifest, encoder):
    clips = open_clips(VideoData(manifest, frames=34), MODEL)
    options = CacheOptions(caption_features=True, shard_size=2, batch_size=2)
    assert json.loads((cached / "cache.json").read_text())["text_dtype"] == "float32"
    with (
        jax.default_matmul_precision("bfloat16"),
        pytest.raises(ConfigError, match="has caption features of another precision"),
    ):
        write_cache(clips, encoder, cached, options)
    assert write_cache(clips, encoder, cached, options)


def test_a_full_disk_is_one_clear_message_and_leaves_no_part(manifest, encoder, tmp_path, monkeypatch):
    clips = open_clips(VideoData(manifest, frames=34), MODEL)

    def full(source, target):
        raise OSError(28, "No space left on device")

    options = CacheOptions(shard_size=2, batch_size=2)
    monkeypatch.setattr("pavdm_jax.storage.os.replace", full)
    with pytest.raises(ConfigError, match="the disk is full"):
        write_cache(clips, encoder, tmp_path / "full", options)
    assert list((tmp_path / "full").iterdir()) == []


def test_the_cache_of_another_model_or_of_other_clips_is_refused(cached, manifest, encoder, tmp_path):
    model = tiny_model()
    vae = model.params["vae"]
    changed = model.replace(params=model.params | {"vae": vae | {"scale": vae["scale"] + 1}})
    with pytest.raises(ConfigError, match="made by another VAE"):
        open_feed(LatentData(str(cached)), changed, 2, cached.parent)
    older = shutil.copytree(cached, tmp_path / "older")
    record = json.loads((older / "cache.json").read_text())
    (older / "cache.json").write_text(json.dumps(record | {"format": 1, "vae": "digest of an earlier rule"}))
    with pytest.raises(ConfigError, match="was written by another version; choose another folder, or delete this one"):
        open_feed(LatentData(str(older)), model, 2, cached.parent)
    decoder = jax.tree.map_with_path(
        lambda path, x: x + 1 if "decoder" in jax.tree_util.keystr(path) else x, model.params["vae"]
    )
    assert vae_fingerprint(model.replace(params=model.params | {"vae": decoder})) == vae_fingerprint(model)
    clips = open_clips(VideoData(manifest, frames=17), MODEL)
    with pytest.raises(ConfigError, match="holds other clips"):
        write_cache(clips, encoder, cached, CacheOptions(caption_features=True, shard_size=2))
    with pytest.raises(ConfigError, match=r"10 latent frames; 15 are needed: precompute clips of at least 51 frames"):
        open_feed(LatentData(str(cached)), model, 3, cached.parent)
    with pytest.raises(ConfigError, match="has no pixels"):
        open_feed(LatentData(str(cached)), model, None, cached.parent)


def test_cached_and_direct_latents_give_the_same_losses(cached, manifest):
    """Two paths to the same batches; also with the text encoder's features from the cache."""
    model = tiny_model()
    direct = open_feed(VideoData(manifest, frames=34, cache=False), model, 1, cached.parent)
    kept = open_feed(VideoData(manifest, frames=34), model, 1, cached.parent)
    read = open_feed(LatentData(str(cached)), model, 1, cached.parent, text_is_frozen=True)
    loss = jax.jit(denoising_loss(MODEL, UniformDiffusion(clip_chunks=1)))
    values = []
    for feed in (direct, kept, read):
        found = list(itertools.islice(map(feed.finish, batches(feed.source, 2, seed=5)), 3))
        assert ("features" in found[0]) == (feed is read)
        values.append([float(loss(model.params, batch, jax.random.key(n))[0]) for n, batch in enumerate(found)])
    np.testing.assert_allclose(values[1], values[0], rtol=1e-4)
    np.testing.assert_allclose(values[2], values[0], rtol=1e-3)
    assert len(set(values[0])) == 3


@pytest.mark.parametrize(
    ("frames", "chunk_size", "chunks"),
    [(34, 3, 2), (24, 1, 6), *at_night((34, 1, 3), (34, 1, 7), (24, 1, 2), (34, 5, 1))],
    ids=lambda number: str(number),
)
def test_samples_may_begin_inside_of_a_micro_clip(manifest, tmp_path, frames, chunk_size, chunks):
    """Chunks that are no whole micro clips, also of clips that end in a part of one, with and without a cache."""
    window = WindowConfig(chunk_size, noisy_chunks=2, context_chunks=0, steps=2)
    model = tiny_model().replace(config=dataclasses.replace(MODEL, window=window))
    direct = open_feed(VideoData(manifest, frames=frames, cache=False), model, chunks, tmp_path)
    kept = open_feed(VideoData(manifest, frames=frames), model, chunks, tmp_path)
    pairs = zip(*(map(feed.finish, batches(feed.source, 3, seed=5)) for feed in (direct, kept)), strict=False)
    seen = set()
    for one, other in itertools.islice(pairs, 4):
        assert one["latents"].shape[1] == chunks * chunk_size
        assert set(one) == set(other)
        np.testing.assert_allclose(one["latents"], other["latents"], atol=2e-3)
        seen |= {bytes(np.asarray(latents[0])) for latents in other["latents"]}
    assert len(seen) > 3


# --- the command line -------------------------------------------------------------------------------------------------


def test_the_command_line_writes_a_cache_and_names_mistakes(manifest, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(precompute, "enable_cache", lambda: None)
    save_model(tmp_path / "model", tiny_model(), jnp.float32)

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["precompute", "--checkpoint", *map(str, (tmp_path / "model", *arguments))])
        with pytest.raises(SystemExit) as ended:
            precompute.main()
        return ended.value.code

    assert run("--manifest", manifest, "--output", tmp_path / "latents", "--frames", 34) == 0
    told = capsys.readouterr().out
    assert "4 clips in" in told and "2 files, rows or clips were left out" in told
    assert "noise.mp4" in told and "cut.mp4" in told
    assert len(LatentCache(tmp_path / "latents")) == 4
    half = ["--caption-features", "--text-dtype", "bfloat16"]
    assert run("--manifest", manifest, "--output", tmp_path / "half", "--frames", 34, *half) == 0
    found, expected = LatentCache(tmp_path / "half").features(0, 0), Encoder(tiny_model()).features(["a wide clip"])[0]
    assert 1e-3 < np.abs(found - expected).max() / np.abs(expected).max() < 5e-2
    assert open_feed(LatentData(str(tmp_path / "half")), tiny_model(), 1, tmp_path, text_is_frozen=True).source
    for arguments, message in (
        (["--manifest", "nowhere.csv"], "there is no manifest nowhere.csv"),
        ([], "either --manifest or --tfds"),
        (["--manifest", manifest, "--process-index", 2], "process_index 2 must be"),
        (["--manifest", manifest, "--process-count", 2, "--distributed"], "leave out --process-index and"),
        (["--manifest", manifest, "--frames", 0], "frames must be at least 1, not 0"),
        (["--manifest", manifest, "--text-dtype", "int8"], "text_dtype int8 is not possible"),
        (["--manifest", manifest, "--text-dtype", "bfloat16"], "ask for both"),
        (["--manifest", manifest, "--frames", 34, "--caption-features", "--output", tmp_path / "half"], "precision"),
    ):
        assert run("--output", tmp_path / "other", *arguments) == 2
        assert message in capsys.readouterr().err


def test_data_is_set_by_dotted_names_on_the_command_line(manifest, tmp_path):
    (tmp_path / "config.py").write_text(
        "from pavdm_jax.config import tiny\nfrom pavdm_jax.training.config import *\n"
        f"data = VideoData({manifest!r})\n"
        "config = TrainConfig(tiny(), (Stage('base', UniformDiffusion(), data, ('stdit3',), 1, 1),))\n"
    )
    _, config = train.read(
        ["--config", str(tmp_path / "config.py"), "--stages.0.data.frames", "34", "--stages.0.data.no-cache"]
    )
    assert config.stages[0].data == VideoData(manifest, frames=34, cache=False)


def test_captions_in_training_are_completed_as_prompts_are(cached, manifest, encoder, monkeypatch):
    """One rule, in the model's config: what sampling appends to a prompt, training appends to a caption."""
    config = dataclasses.replace(MODEL, text=TextConfig(max_tokens=8, aesthetic_score=5.0, camera_motion="pan right"))
    model, seen = tiny_model().replace(config=config), []
    tokenize = Tokenizer.tokenize
    monkeypatch.setattr(
        Tokenizer, "tokenize", lambda self, texts, count: seen.extend(texts) or tokenize(self, texts, count)
    )
    prompt_features(model, ["a red circle"], jnp.float32)
    (sampled,) = seen
    suffix = sampled.removeprefix("a red circle")
    assert suffix == " aesthetic score: 5.0. camera motion: pan right."
    seen.clear()
    captions = [caption for n in range(4) for caption in LatentCache(cached).about(n)["captions"]]
    for data in (LatentData(str(cached)), VideoData(manifest, frames=34, cache=False)):
        feed = open_feed(data, model, 1, cached.parent)
        feed.source.draw(0, np.random.default_rng(0))
    Encoder(model).features(captions[:1])
    assert len(seen) == 3
    assert {text.removesuffix(suffix) for text in seen} <= set(captions)
    assert all(text.endswith(suffix) for text in seen)
