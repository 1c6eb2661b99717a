"""The model before the first step: its tokenizer comes from the config or the data."""

import dataclasses

import numpy as np
import pytest
from support.small_videos import gradient, write_csv, write_video
from support.tiny_model import SHAPES, TINY, tiny_model

from pavdm_jax.checkpoints.load import load
from pavdm_jax.checkpoints.model_folder import save_model
from pavdm_jax.checkpoints.run_folder import is_unfinished_run
from pavdm_jax.data.shapes_world import sample_captions
from pavdm_jax.errors import ConfigError
from pavdm_jax.models.tokenizer import UNKNOWN_ID, Tokenizer, train_tokenizer
from pavdm_jax.training import start
from pavdm_jax.training.config import ShapesData, SpatialReconstruction, Stage, TrainConfig, VideoData


def config(*data, **changes):
    stages = (Stage(f"s{n}", SpatialReconstruction(), one, ("vae",), 1, 1) for n, one in enumerate(data))
    return TrainConfig(SHAPES, tuple(stages), **changes)


@pytest.fixture
def manifest(tmp_path):
    write_video(tmp_path / "a.mp4", gradient(2, 64, 64))
    rows = ["a.mp4,Quick foxes jump", "a.mp4,über 7 zebras"]
    return write_csv(tmp_path / "clips.csv", rows)


def unknown(tokenizer, text):
    ids, lengths = tokenizer.tokenize([text], 40)
    return int((ids[0, : lengths[0]] == UNKNOWN_ID).sum())


def test_the_shapes_world_gives_the_tokenizer_that_it_always_gave():
    captions = sample_captions(np.random.default_rng(5), 4000, split="train")
    made = start.make_tokenizer(config(ShapesData(1), ShapesData(17, samples=4), seed=5))
    assert made.model_bytes == train_tokenizer(captions, SHAPES.t5.vocab_size)


def test_captions_of_a_manifest_make_the_tokenizer(manifest):
    made = start.make_tokenizer(config(VideoData(manifest, 1)))
    assert unknown(made, "quick zebras jump über 7 foxes") == 0
    shapes = start.make_tokenizer(config(ShapesData(1)))
    assert unknown(shapes, "quick zebras jump über 7 foxes") > 0
    both = start.make_tokenizer(config(ShapesData(1), VideoData(manifest, 1)))
    assert unknown(both, "a red circle jumps über 7 foxes") == 0


def test_a_tokenizer_may_be_given(manifest, tmp_path):
    content = train_tokenizer(["some other words"], 64)
    (tmp_path / "spiece.model").write_bytes(content)
    given = config(VideoData(manifest, 1), tokenizer=str(tmp_path / "spiece.model"))
    assert start.make_tokenizer(given) == Tokenizer(content)
    small = dataclasses.replace(TINY, t5=dataclasses.replace(TINY.t5, vocab_size=8))
    with pytest.raises(ConfigError, match=r"spiece\.model has \d+ ids and the text encoder 8; give --model\.t5\.vocab"):
        start.make_tokenizer(dataclasses.replace(given, model=small))
    with pytest.raises(ConfigError, match="there is no tokenizer nowhere"):
        start.make_tokenizer(dataclasses.replace(given, tokenizer="nowhere"))
    with pytest.raises(ConfigError, match="is for random weights"):
        dataclasses.replace(given, init_from="demo")
    (tmp_path / "spiece.model").write_bytes(b"no")
    with pytest.raises(ConfigError, match=r"the tokenizer .*spiece\.model cannot be used: these 2 bytes"):
        start.make_tokenizer(given)


def test_captions_that_make_no_tokenizer_are_refused_with_the_remedy(tmp_path, manifest):
    empty = write_csv(tmp_path / "empty.csv", ["a.mp4,\u4e00"])  # of which the cleaning leaves nothing
    with pytest.raises(ConfigError, match=r"no captions .*; or give one: --tokenizer spiece\.model, or .*--init-from"):
        start.make_tokenizer(config(VideoData(empty, 1)))


def test_a_model_may_be_trained_on_with_another_number_of_frames_coded_at_once(tmp_path):
    """As the paper's M setting is: 16 frames to 5 latent ones."""
    save_model(tmp_path / "start", tiny_model(SHAPES))
    vae = dataclasses.replace(SHAPES.vae, micro_frames=16, micro_latents=5)
    given = config(ShapesData(1), init_from=str(tmp_path / "start"))
    given = dataclasses.replace(given, model=dataclasses.replace(SHAPES, vae=vae))
    model = start.given_model(given)
    assert model is not None and model.config.vae == vae
    deeper = dataclasses.replace(SHAPES, t5=dataclasses.replace(SHAPES.t5, num_layers=2))
    with pytest.raises(ConfigError, match="of another architecture"):
        start.given_model(dataclasses.replace(given, model=deeper))


def test_a_folder_of_its_name_does_not_hide_the_embedded_model(tmp_path, monkeypatch):
    (tmp_path / "demo" / "stages").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert load("demo", parts=()).config.name == "demo"
    assert not is_unfinished_run("demo") and is_unfinished_run("./demo")

    def forbidden(*_):
        raise AssertionError("the parameters were read")

    monkeypatch.setattr(start, "load_whole", forbidden)
    with pytest.raises(ConfigError, match="init_from demo holds the model 'demo' of another architecture"):
        start.given_model(config(ShapesData(1), init_from="demo"))


def test_a_model_may_be_trained_on_with_more_blocks_or_other_patches(tmp_path):
    save_model(tmp_path / "start", tiny_model(SHAPES))
    grown = dataclasses.replace(SHAPES.stdit3, base_size=8)
    given = config(ShapesData(1), init_from=str(tmp_path / "start"))
    model = start.given_model(dataclasses.replace(given, model=dataclasses.replace(SHAPES, stdit3=grown)))
    assert model is not None and model.folder is None  # it is another one than that on disk, as adapters must know
    grown = dataclasses.replace(SHAPES.stdit3, patch_size=(1, 1), depth=3)
    given = config(ShapesData(1), init_from=str(tmp_path / "start"))
    model = start.given_model(dataclasses.replace(given, model=dataclasses.replace(SHAPES, stdit3=grown)))
    assert model is not None and model.config.stdit3 == grown
    assert model.params["stdit3"]["patch_embed"]["kernel"].shape == (grown.latent_channels, grown.hidden_size)
    assert model.params["stdit3"]["blocks"]["spatial"]["qkv"]["kernel"].shape[0] == 3
