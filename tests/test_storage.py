"""Buckets: everything that training needs reads from and writes to gs://, here to an emulator on this machine."""

import csv
import dataclasses
import io

import fsspec
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util
from support.bucket_server import environment, serve
from support.small_videos import write_examples
from support.tiny_model import tiny_model

from pavdm_jax import __main__, convert_weights, storage
from pavdm_jax.checkpoints import lora
from pavdm_jax.checkpoints.fingerprint import params_fingerprint
from pavdm_jax.checkpoints.layers import PartReader
from pavdm_jax.checkpoints.load import load
from pavdm_jax.checkpoints.model_folder import save_model
from pavdm_jax.checkpoints.run_folder import newest_step, stage_folder
from pavdm_jax.config import tiny
from pavdm_jax.data.clips import open_clips
from pavdm_jax.data.config import ShapesData, VideoData
from pavdm_jax.data.latent_cache import LatentCache
from pavdm_jax.data.latent_writer import CacheOptions, write_cache
from pavdm_jax.data.manifest import read_manifest
from pavdm_jax.errors import ConfigError
from pavdm_jax.training.checkpoints import Checkpoints
from pavdm_jax.training.config import LoRAConfig, Stage, TrainConfig, UniformDiffusion
from pavdm_jax.training.log import RunLog
from pavdm_jax.training.run_record import check_claim, claim
from pavdm_jax.training.state import init_state

BUCKET = "gs://bucket"


@pytest.fixture(scope="module", autouse=True)
def files():
    """The bucket, as a file system."""
    with pytest.MonkeyPatch.context() as patch, serve("bucket") as port:
        for name, value in environment(port).items():
            patch.setenv(name, value)
        yield fsspec.filesystem("gs", use_listings_cache=False)


@pytest.fixture(scope="module")
def manifest(files, tmp_path_factory):
    """Of videos on disk, which are in the bucket, too."""
    folder = tmp_path_factory.mktemp("videos")
    write_examples(folder)
    files.put([str(path) for path in sorted(folder.iterdir())], "bucket/data/")
    return folder / "clips.csv"


@pytest.fixture(scope="module")
def model():
    """A transformer alone, in the bucket."""
    model = tiny_model().replace(params={"stdit3": tiny_model().params["stdit3"]}, tokenizer=None)
    save_model(f"{BUCKET}/model", model)
    return model


# --- data -------------------------------------------------------------------------------------------------------------


def test_the_clips_of_a_manifest_in_a_bucket_are_those_on_disk(files, manifest):
    ours = open_clips(VideoData(f"{BUCKET}/data/clips.csv", frames=17), tiny())
    theirs = open_clips(VideoData(str(manifest), frames=17), tiny())
    assert ours.identity == theirs.identity
    for n in range(len(theirs)):
        np.testing.assert_array_equal(ours.frames(n), theirs.frames(n))
    assert {name.rsplit("/")[-1] for name in ours.skipped} == {"noise.mp4", "cut.mp4"}
    index = files.cat_file("bucket/data/clips.index.json")
    files.pipe_file("bucket/data/clips.index.json", index.replace(b'"height": 96', b'"height": 64'))
    again = open_clips(VideoData(f"{BUCKET}/data/clips.csv", frames=17), tiny())
    assert again.identity == ours.identity  # one size for all: but the index was believed
    assert b'"height": 64' in files.cat_file("bucket/data/clips.index.json")
    files.copy("bucket/data/wide.mp4", "bucket/data/tall.mp4")  # another object of that name
    with pytest.raises(ConfigError, match=r"names 1 files that do not exist, first gs://bucket/data/none\.mp4"):
        files.pipe_file("bucket/data/bad.csv", b"path,caption\nnone.mp4,x\nlong.mp4,x\n")
        read_manifest(f"{BUCKET}/data/bad.csv")
    assert len(open_clips(VideoData(f"{BUCKET}/data/clips.csv", frames=17), tiny())) == 8
    assert b'"width": 64' not in files.cat_file("bucket/data/clips.index.json")


def test_a_manifest_on_disk_may_name_objects_and_one_in_a_bucket_other_folders(files, manifest, tmp_path):
    (tmp_path / "clips.csv").write_text(f"path,caption\n{BUCKET}/data/long.mp4,x\n")
    assert [row.path for row in read_manifest(tmp_path / "clips.csv")] == [f"{BUCKET}/data/long.mp4"]
    files.pipe_file("bucket/lists/a.jsonl", b'{"path": "../data/wide.mp4", "caption": "x"}')
    assert [row.path for row in read_manifest(f"{BUCKET}/lists/a.jsonl")] == [f"{BUCKET}/data/wide.mp4"]


class Brightness:
    """An encoder whose latents are the means of the frames."""

    model = tiny_model()

    def latents(self, frames):
        return frames.mean((2, 3, 4), keepdims=True).astype(np.float16)


def test_latents_in_a_bucket_are_read_from_local_copies(files, manifest):
    clips, options = open_clips(VideoData(str(manifest), frames=34), tiny()), CacheOptions(shard_size=2)
    folder = storage.as_path(f"{BUCKET}/latents")
    assert not write_cache(clips, Brightness(), folder, options, 0, 2)
    with pytest.raises(ConfigError, match="not complete"):
        LatentCache(folder)
    assert write_cache(clips, Brightness(), folder, options, 1, 2)
    cache = LatentCache(f"{BUCKET}/latents")
    for n in range(len(clips)):
        np.testing.assert_array_equal(cache.latents(n, 3, 20), Brightness().latents(clips.frames(n)[None])[0, 3:20])
        assert cache.about(n)["captions"] == clips.captions(n)
    shard = folder / "shard-00000-of-00002.safetensors"
    assert storage.local_copy(shard).read_bytes() == files.cat_file(str(shard))
    files.rm(str(shard))
    with pytest.raises(
        ConfigError, match="1 files of the latents in gs://bucket/latents are missing, first shard-00000"
    ):
        LatentCache(f"{BUCKET}/latents")


# --- models -----------------------------------------------------------------------------------------------------------


def test_a_model_comes_back_and_one_that_was_not_finished_does_not_count(files, model, monkeypatch):
    jax.tree.map(np.testing.assert_array_equal, load(f"{BUCKET}/model", ["stdit3"]).params, model.params)
    flat = traverse_util.flatten_dict(model.params["stdit3"], sep="/")
    name = next(name for name in flat if name.endswith("kernel"))
    read = PartReader(storage.as_path(f"{BUCKET}/model/params/stdit3")).read(name, None)
    np.testing.assert_array_equal(read, flat[name])

    files.pipe_file("bucket/other/parts.json", b"{}")
    files.pipe_file("bucket/other/older", b"")
    monkeypatch.setattr(
        "pavdm_jax.checkpoints.model_folder._save_part", lambda *_: 1 / 0
    )  # what the cloud's libraries raise is of any kind
    with pytest.raises(storage.StorageError, match="gs://bucket/other cannot be used: division by zero"):
        save_model(f"{BUCKET}/other", model)
    assert storage.names(storage.as_path(f"{BUCKET}/other")) == {"config.json"}
    with pytest.raises(ConfigError, match=r"gs://bucket/other is not a complete checkpoint: parts\.json is missing"):
        load(f"{BUCKET}/other")


def test_adapters_are_read_from_a_run_in_a_bucket(model):
    adapters = lora.init_adapters(
        jax.random.key(0), traverse_util.flatten_dict(model.params, sep="/"), LoRAConfig().layers[:1], 2
    )
    adapters = {name: x + 0.1 for name, x in adapters.items()}
    about = lora.Adapters(adapters, 4.0, params_fingerprint(model.transformer), "../model", model.config)
    lora.save(storage.as_path(f"{BUCKET}/adapted/{lora.FILE}"), about)
    expected = lora.merge(model.params, adapters, 4.0, lora.exact_product)
    for path, given in ((f"{BUCKET}/model", f"{BUCKET}/adapted"), (f"{BUCKET}/adapted", None)):
        jax.tree.map(np.testing.assert_allclose, load(path, ["stdit3"], lora=given).params, expected)


# --- runs -------------------------------------------------------------------------------------------------------------


def test_a_run_goes_on_from_its_last_whole_checkpoint(files, model):
    """As a process does that is killed while it writes one."""
    stage = Stage("base", UniformDiffusion(), ShapesData(17), ("stdit3",), 9, 1)
    config = TrainConfig(model.config, (stage,), f"{BUCKET}/run", f"{BUCKET}/model")
    output = storage.as_path(config.output)
    folder = stage_folder(output, 0, stage.name)
    name = "stdit3/null_caption"
    trained = {name: model.params["stdit3"]["null_caption"]}
    state = init_state(trained, optax.sgd(0.1), {"loss": (jnp.zeros(()), jnp.zeros(()))})
    state = state.replace(ema={name: trained[name] + 1.0}, step=jnp.int32(3))

    with claim(output, config):
        assert newest_step(output) == 0
    with RunLog(output, 0) as log, Checkpoints(folder, config, stage, model, config.init_from) as checkpoints:
        log.line(3, {"stage": "base", "step": 3}, {"loss": 1.0})
        checkpoints.save(3, state, 1.0)
        checkpoints.wait()
        log.line(4, {"stage": "base", "step": 4}, {"loss": 1.0})
        (log.folder / "samples").mkdir()
        (log.folder / "samples" / "a.gif").write_bytes(b"gif")
        log.keep()
        assert files.cat_file("bucket/run/samples/a.gif") == b"gif"
        log.text.info("a line")
    files.copy("bucket/run/stages/0-base/3/", "bucket/run/stages/0-base/5/", recursive=True)
    files.rm("bucket/run/stages/0-base/5/commit_success.txt")

    assert check_claim(output, config)
    with pytest.raises(ConfigError, match="gs://bucket/run holds a run with seed 0, not 1"):
        check_claim(output, dataclasses.replace(config, seed=1))
    assert newest_step(output) == 3
    np.testing.assert_array_equal(load(output, ["stdit3"]).params["stdit3"]["null_caption"], trained[name] + 1.0)
    with RunLog(output, 3) as log, Checkpoints(folder, config, stage, model, config.init_from) as checkpoints:
        assert checkpoints.latest == 3
        restored = checkpoints.restore(jax.tree.map(jnp.zeros_like, state))
        jax.tree.map(np.testing.assert_array_equal, restored, state)
        log.line(4, {"stage": "base", "step": 4, "loss": 2.0}, {"loss": 2.0})
        checkpoints.save(5, state, 1.0)  # in place of the one that was not finished
    rows = list(csv.DictReader(io.StringIO(files.cat_file("bucket/run/log.csv").decode())))
    assert [(row["step"], row["loss"]) for row in rows] == [("3", ""), ("4", "2")]
    assert files.cat_file("bucket/run/train.log").decode().endswith("INFO a line\n")
    assert len(files.ls("bucket/run/tensorboard")) == 2
    assert newest_step(output) == 5
    np.testing.assert_array_equal(load(output, ["stdit3"]).params["stdit3"]["null_caption"], trained[name] + 1.0)


def test_a_reference_leads_back_from_a_folder_behind_a_link(tmp_path):
    (tmp_path / "disk" / "runs").mkdir(parents=True)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "start").mkdir()
    (tmp_path / "home" / "runs").symlink_to(tmp_path / "disk" / "runs")
    run = tmp_path / "home" / "runs" / "run"
    run.mkdir()
    found = storage.resolve(run, storage.reference(tmp_path / "home" / "start", run))
    assert found.samefile(tmp_path / "home" / "start")


def test_files_name_others_so_that_both_may_move_together():
    run = storage.as_path(f"{BUCKET}/runs/run")
    for named, path in (
        ("start", f"{BUCKET}/runs/run/start"),
        ("../base", f"{BUCKET}/runs/base"),
        ("/models/base", "/models/base"),
    ):
        assert storage.reference(path, run) == named
        assert str(storage.resolve(run, named)) == path
    assert storage.reference(f"{BUCKET}/base", "runs/run") == f"{BUCKET}/base"
    assert str(storage.resolve(storage.as_path("runs/run"), f"{BUCKET}/base")) == f"{BUCKET}/base"


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_what_cannot_work_is_one_line(monkeypatch, tmp_path):
    for path, message in (
        ("gs://no-bucket/run", "there is no bucket gs://no-bucket"),
        ("gs://bucket", "names no file or folder"),
        ("s3://bucket/run", "of URLs only gs://BUCKET/NAME"),
        ("gs://bucket/nothing", "no checkpoint folder gs://bucket/nothing"),
    ):
        with pytest.raises(ConfigError, match=message):
            load(path)
    monkeypatch.chdir(tmp_path)
    for main, arguments in (
        (__main__.main, ["x", "--output", f"{BUCKET}/video.mp4"]),
        (convert_weights.main, ["--output", f"{BUCKET}/model"]),
    ):
        monkeypatch.setattr("sys.argv", ["pavdm", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 2
    assert list(tmp_path.iterdir()) == []

    class Closed:
        def ls(self, path, **_):
            raise ValueError("Anonymous caller does not have storage.objects.list access")

    monkeypatch.setattr(storage, "_bucket_files", Closed)
    with pytest.raises(ConfigError, match=r"gs://closed cannot be used: Anonymous caller .* log in: gcloud auth"):
        storage.as_path("gs://closed/run")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"gcsfs is needed; install it: pip install 'pavdm_jax\[gcs\]'"):
        storage.as_path("gs://other/run")
