"""SkyReels-V2-DF from published files to frames: both layouts by the command line, the reference's video, redo."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import golden_data
from support.command_line import mistake
from support.golden_data import GOLDEN, channels_last

from pavdm_jax import convert_weights, generate, load, make_video, redo
from pavdm_jax.checkpoints.model_folder import open_model
from pavdm_jax.conversion.tensor_files import SafetensorsFile
from pavdm_jax.generation import programs
from pavdm_jax.models.model import PARTS, flatten
from pavdm_jax.video.clips import read_video
from pavdm_jax.video.writer import read_comment
from pavdm_jax.wan_config import NEGATIVE_PROMPT

CHECKPOINTS = GOLDEN / "skyreels" / "checkpoints"
ORIGINAL, DIFFUSERS = CHECKPOINTS / "SkyReels-V2-DF-tiny", CHECKPOINTS / "SkyReels-V2-DF-tiny-Diffusers"
PROMPT = "a bako walks"


def converted_from(repository, output):
    """By the options that a user gives: the folder with all parts, for each part."""
    options = [item for name in ("--transformer", "--vae", "--text-encoder") for item in (name, str(repository))]
    assert convert_weights.run(convert_weights.read([*options, "--output", str(output), "--quiet"])) == 0
    return output


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    pytest.importorskip("torch")  # the original layout has files of PyTorch
    return converted_from(ORIGINAL, tmp_path_factory.mktemp("models") / "skyreels")


def test_both_layouts_are_one_model(converted, tmp_path):
    original, ported = load(converted, PARTS), load(converted_from(DIFFUSERS, tmp_path / "ported"), PARTS)
    for part in ("wan", "vae"):
        jax.tree.map(np.testing.assert_array_equal, original.params[part], ported.params[part])
    # The text encoder is stored in bfloat16 in the original layout.
    for name, value in flatten(original.params["t5"]).items():
        np.testing.assert_allclose(value, flatten(ported.params["t5"])[name], rtol=2**-8, atol=1e-6, err_msg=name)
    assert original.tokenizer == ported.tokenizer


def test_the_model_knows_how_it_was_trained(converted):
    files = open_model(converted)
    assert files.config.name == "skyreels-v2-df"
    assert files.config.negative_prompt == NEGATIVE_PROMPT
    assert json.loads((GOLDEN / "skyreels" / "settings.json").read_text())["negative_prompt"] == NEGATIVE_PROMPT
    assert files.trained_with[0].levels == "any"


def test_the_public_pipeline_makes_the_references_video(converted, monkeypatch):
    settings, arrays = golden_data.load("skyreels/end_to_end")
    start = jnp.asarray(channels_last(arrays["inputs"]["latents"][None]))
    monkeypatch.setattr(programs, "gaussian_noise", lambda keys, shape: lambda number: start)
    jax.clear_caches()  # the noise is a part of the compiled programs
    video = generate(
        load(converted),
        settings["prompt"],
        frames=settings["num_frames"],
        height=settings["height"],
        width=settings["width"],
        fps=settings["fps"],
        steps=settings["steps"],
        guidance_scale=settings["guidance_scale"],
        negative_prompt=settings["negative_prompt"],
        schedule="synchronous",
        mesh="single",
    )
    jax.clear_caches()
    expected = np.moveaxis(arrays["outputs"]["video"][0], 0, -1)
    assert np.abs(video / 127.5 - 1 - expected).max() < 0.6 / 127.5  # frames are rounded to 8 bits


def test_a_video_by_the_command_line_goes_on_and_can_be_redone(converted, tmp_path):
    size = ["--height", "16", "--width", "16", "--chunk-size", "1", "--noisy-chunks", "2", "--steps", "2"]
    size += ["--noise-shift", "5"]
    options = ["--checkpoint", str(converted), "--quiet", "--output", str(tmp_path / "v.mp4"), *size]
    assert make_video.run(make_video.read([PROMPT, "--frames", "30", *options])) == 0
    video = read_video(tmp_path / "v.mp4")
    assert video.shape == (30, 16, 16, 3)
    said = json.loads(read_comment(tmp_path / "v.mp4"))
    assert (said["negative_prompts"], said["noise_shift"]) == ([NEGATIVE_PROMPT], 5.0)
    again = [str(tmp_path / "v.mp4"), "--checkpoint", str(converted), "--quiet", "--from", "0.5", "--seed", "0"]
    assert redo.run(redo.read(again)) == 0
    np.testing.assert_array_equal(read_video(tmp_path / "v-redo.mp4"), video)


def test_the_transformer_goes_back_as_it_came(converted, tmp_path):
    file = tmp_path / "model.safetensors"
    command = ["--export-transformer", str(converted), "--output", str(file), "--quiet"]
    assert convert_weights.run(convert_weights.read(command)) == 0
    before, after = SafetensorsFile(ORIGINAL / "model.safetensors"), SafetensorsFile(file)
    assert before.tensors.keys() == after.tensors.keys()
    for name in before.tensors:
        np.testing.assert_array_equal(before.read(name), after.read(name), err_msg=name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--vae", DIFFUSERS / "transformer"], "a transformer of SkyReels-V2-DF or Wan 2.1"),
        (["--transformer", DIFFUSERS / "vae"], "Wan 2.1's VAE"),
        (["--family", "sora"], "--family sora is not known; use open-sora-1.2, skyreels-v2-df-1.3b"),
    ],
)
def test_mistakes_are_one_line(options, message, tmp_path, monkeypatch, capsys):
    code, line = mistake(capsys, monkeypatch, "convert-weights", *options, "--output", tmp_path / "model")
    assert code == 2
    assert message in line
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--keep-latents"], "whose VAE codes a clip from its first frame"),
        (["--clip-frames", "51"], "clip_frames 51 cannot be decoded whole; use 49 or 53"),
        (["--context-frames", "16"], "context_frames 16 ends inside a latent frame; use 13 or 17"),
    ],
)
def test_what_the_family_cannot_do_is_refused(options, message, converted, monkeypatch, capsys):
    arguments = [PROMPT, "--checkpoint", converted, "--method", "replacement", "--height", "16", "--width", "16"]
    code, line = mistake(capsys, monkeypatch, *arguments, *options)
    assert code == 2
    assert message in line
