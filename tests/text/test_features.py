"""Features of prompts: kept on disk by text and text encoder, so that a second run reads no text encoder; damage is
mended."""

import dataclasses
import io
import json
import shutil
import warnings
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.tiny_model import CHUNK, PROMPT, tiny_model

from pavdm_jax import generate, make_video
from pavdm_jax.checkpoints.load import load
from pavdm_jax.checkpoints.model_folder import save_model
from pavdm_jax.errors import ConfigError
from pavdm_jax.models.t5 import T5Encoder
from pavdm_jax.text import features as features_module
from pavdm_jax.text.captions import clean_caption
from pavdm_jax.text.features import prompt_features
from pavdm_jax.text.layerwise_t5 import encode_from_disk

OTHER = "a large green triangle moves right"


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    monkeypatch.setenv("PAVDM_CACHE", str(tmp_path / "cache"))
    save_model(tmp_path / "model", tiny_model())
    return tmp_path / "model"


def without_text_encoder(checkpoint):
    """Whoever reads it now, fails."""
    shutil.rmtree(checkpoint / "params" / "t5")


def features(model, *prompts, dtype=jnp.float32):
    return prompt_features(model, prompts, dtype)


def test_features_are_the_text_encoders_and_zero_at_the_padding():
    model = tiny_model()
    made, lengths = features(model, PROMPT, OTHER, PROMPT)
    ids, expected_lengths = model.tokenizer.tokenize([clean_caption(PROMPT), clean_caption(OTHER)], 8)
    expected = T5Encoder(model.config.t5).apply({"params": model.params["t5"]}, ids, expected_lengths)
    np.testing.assert_array_equal(lengths, expected_lengths[[0, 1, 0]])
    for row, text in enumerate([0, 1, 0]):
        np.testing.assert_allclose(made[row, : lengths[row]], expected[text, : lengths[row]], atol=1e-5)
        assert (made[row, lengths[row] :] == 0).all()
    np.testing.assert_array_equal(features(model, OTHER)[0][0], made[1])  # its company changes nothing


def test_a_second_run_reads_no_text_encoder_and_makes_the_same_video(checkpoint):
    model = load(checkpoint)
    assert set(model.params) == {"stdit3", "vae"}
    first = generate(model, PROMPT, CHUNK)
    np.testing.assert_array_equal(first, generate(tiny_model(), PROMPT, CHUNK))
    without_text_encoder(checkpoint)
    np.testing.assert_array_equal(first, generate(load(checkpoint), PROMPT, CHUNK))
    with pytest.raises(ConfigError, match="not a complete checkpoint"):
        generate(load(checkpoint), OTHER, CHUNK)


def test_features_of_another_precision_of_products_are_others(checkpoint):
    exact = features(load(checkpoint), PROMPT)[0]
    with jax.default_matmul_precision("bfloat16"):
        rounded = features(load(checkpoint), PROMPT)[0]
    assert np.abs(rounded - exact).max() > 1e-4
    without_text_encoder(checkpoint)  # both were kept
    np.testing.assert_array_equal(features(load(checkpoint), PROMPT)[0], exact)
    with jax.default_matmul_precision("bfloat16"):
        np.testing.assert_array_equal(features(load(checkpoint), PROMPT)[0], rounded)


def test_features_of_many_texts_are_kept_group_by_group(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(features_module, "AT_ONCE", 2)
    groups, texts = [], [PROMPT, OTHER, "a blue square", "a green circle", "a white triangle"]

    def stops(folder, expected, ids, *arguments, **options):
        groups.append(len(ids))
        if len(groups) == 3:
            raise KeyboardInterrupt
        return encode_from_disk(folder, expected, ids, *arguments, **options)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(features_module, "encode_from_disk", stops)
        features(load(checkpoint), *texts)
    assert groups == [2, 2, 1]
    assert len(list((tmp_path / "cache" / "features").rglob("*.npz"))) == 4
    made, _ = features(load(checkpoint), *texts)
    np.testing.assert_array_equal(made[4], features(load(checkpoint), texts[4])[0][0])


def test_the_command_line_reads_the_text_encoder_once_and_before_the_rest(checkpoint, tmp_path, monkeypatch):
    read = []

    def spy(path, parts=("stdit3", "vae"), **options):
        read.append(tuple(parts))
        return load(path, parts, **options)

    def layers(folder, *arguments, **options):
        read.append((folder.name,))
        return encode_from_disk(folder, *arguments, **options)

    monkeypatch.setattr("pavdm_jax.checkpoints.load.load", spy)
    monkeypatch.setattr("pavdm_jax.text.features.encode_from_disk", layers)

    def run(name):
        arguments = [PROMPT, "--checkpoint", checkpoint, "--frames", 5, "--output", tmp_path / name, "--quiet"]
        make_video.run(make_video.read([str(argument) for argument in arguments]))
        parts, read[:] = [names for names in read if names], []
        return parts, (tmp_path / name).read_bytes()

    first, second = run("first.mp4"), run("second.mp4")
    assert first[0] == [("t5",), ("stdit3", "vae")]
    assert second[0] == [("stdit3", "vae")]
    assert first[1] == second[1]


def encrypted(archive):
    """The bytes of a zip file of which a flag says that its first file is encrypted."""
    changed = bytearray(archive)
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        changed[archive.index(mark) + offset] |= 1
    return bytes(changed)


def test_a_damaged_entry_is_made_anew(checkpoint, tmp_path):
    model = load(checkpoint)
    whole, _ = features(model, PROMPT)
    (entry,) = (tmp_path / "cache" / "features").rglob("*.npz")
    sound = entry.read_bytes()
    text = io.BytesIO()
    with zipfile.ZipFile(text, "w") as archive:
        archive.writestr("features", "no array")
    cut = sound[:100], sound[:-40] + bytes(40), sound[:200] + b"x" + sound[201:]
    for damaged in (b"", *cut, encrypted(sound), text.getvalue()):
        entry.write_bytes(damaged)
        np.testing.assert_array_equal(features(model, PROMPT)[0], whole)
        assert entry.read_bytes() == sound
    assert [path.name for path in entry.parent.iterdir()] == [entry.name]


def test_another_text_encoder_or_precision_has_entries_of_its_own(checkpoint, tmp_path):
    model = load(checkpoint)
    first, _ = features(model, PROMPT)
    halved, _ = features(model, PROMPT, dtype=jnp.bfloat16)
    assert 0 < np.abs(first - halved).max() < 0.1 * np.abs(first).max()
    changed = jax.tree.map(lambda x: 2 * x, tiny_model().params["t5"])
    save_model(checkpoint, tiny_model().replace(params={**tiny_model().params, "t5": changed}))
    assert np.abs(features(load(checkpoint), PROMPT)[0] - first).max() > 0
    assert len(list((tmp_path / "cache" / "features").rglob("*.npz"))) == 3


def test_parameters_in_memory_win_over_those_on_disk(checkpoint, tmp_path):
    features(load(checkpoint, ["t5"]), PROMPT)
    assert not (tmp_path / "cache" / "features").exists()


def test_a_model_without_any_text_encoder_says_so():
    model = tiny_model().replace(params={"stdit3": tiny_model().params["stdit3"]})
    with pytest.raises(ConfigError, match="no text encoder"):
        features(model, PROMPT)


def test_a_cache_that_cannot_be_written_is_named(checkpoint, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PAVDM_CACHE", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="set PAVDM_CACHE"):
        features(load(checkpoint), PROMPT)


def test_negative_prompts_are_cleaned_and_get_no_scores():
    """Guidance would lead away from what the scores ask for."""
    model = tiny_model()
    text = dataclasses.replace(model.config.text, motion_score=9.0)
    scored = model.replace(config=dataclasses.replace(model.config, text=text))
    with pytest.warns(UserWarning, match=r"the first 8 are read: circle motion score: 9\.0\."):
        made, lengths = prompt_features(scored, ["circle"], jnp.float32, negative=["<b>Circle</b>"])
    expected, expected_lengths = features(model, "circle")
    assert lengths[0] > expected_lengths[0] == lengths[1]
    np.testing.assert_array_equal(made[1], expected[0])


def test_a_prompt_that_is_cut_is_told():
    model = tiny_model()
    with pytest.warns(UserWarning, match=r"of \d+ tokens of a prompt the first 8 are read: a large green"):
        features(model, PROMPT, "a large green triangle moves right " * 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features(model, "a red circle")


@pytest.mark.parametrize("change", [{"num_heads": 4}, {"num_layers": 3}, {"d_ff": 8}])
def test_a_config_that_does_not_fit_the_text_encoder_is_one_line(checkpoint, change):
    path = checkpoint / "config.json"
    config = json.loads(path.read_text())
    config["t5"] |= change
    path.write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"params/t5 holds another architecture than the config\.json says"):
        prompt_features(load(checkpoint, parts=()), [PROMPT], jnp.float32)
