"""The command line: whole videos, numbered outputs, and one clear line for every mistake."""

import errno
import json

import jax
import numpy as np
import pytest
from support.command_line import mistake, run
from support.tiny_model import PROMPT

from pavdm_jax import load
from pavdm_jax.checkpoints import lora
from pavdm_jax.checkpoints.fingerprint import model_fingerprint, params_fingerprint
from pavdm_jax.models.model import PARTS, flatten
from pavdm_jax.video.clips import read_video
from pavdm_jax.video.writer import VideoWriter, read_comment


def test_a_video_and_a_gif_are_written(checkpoint, tmp_path, capsys):
    output = tmp_path / "new folder" / "v.mp4"
    assert run(PROMPT, "--checkpoint", checkpoint, "--frames", 40, "--gif", "--output", output) == 0
    assert read_video(output).shape == (40, 16, 24, 3)
    assert sorted(path.name for path in output.parent.iterdir()) == ["v.gif", "v.mp4", "v.states"]
    shown = capsys.readouterr()
    assert "40 frames" in shown.out
    assert "frames/s" in shown.err


def test_prompts_from_a_file_times_samples_are_numbered(checkpoint, tmp_path):
    (tmp_path / "prompts.txt").write_text("# two of them\na red circle moves left\n\na blue square bounces\n")
    common = ["--frames", 5, "--checkpoint", checkpoint, "--quiet", "--crf", 1]
    several = ["--prompts-file", tmp_path / "prompts.txt", "--samples", 2, "--batch-size", 3]
    assert run(*several, *common, "--output", tmp_path / "v.mp4") == 0
    videos = {path.name: read_video(path) for path in sorted(tmp_path.glob("*.mp4"))}
    assert list(videos) == ["v-001.mp4", "v-002.mp4", "v-003.mp4", "v-004.mp4"]
    assert (videos["v-001.mp4"] != videos["v-002.mp4"]).any()
    run("a blue square bounces", *common, "--seed", 1, "--output", tmp_path / "alone.mp4")
    alone = read_video(tmp_path / "alone.mp4").astype(int)
    differences = {name: np.abs(alone - video).mean() for name, video in videos.items()}
    assert min(differences, key=differences.__getitem__) == "v-004.mp4" and differences["v-004.mp4"] < 1, differences


def test_adapters_are_sampled_with(checkpoint, tmp_path):
    model = load(checkpoint, PARTS)
    factors = lora.init_adapters(jax.random.key(0), flatten(model.params), ("qkv",), 2)
    factors = {name: value + 0.1 for name, value in factors.items()}
    lora.save(tmp_path / lora.FILE, lora.Adapters(factors, 2.0, params_fingerprint(model.params["stdit3"])))
    for name, options in (("base", []), ("adapted", ["--lora", tmp_path / lora.FILE])):
        arguments = ["--checkpoint", checkpoint, "--frames", 5, "--output", tmp_path / f"{name}.mp4", "--quiet"]
        assert run(PROMPT, *arguments, *options) == 0
    weights = [json.loads(read_comment(tmp_path / f"{name}.mp4") or "")["weights"] for name in ("base", "adapted")]
    adapted = load(checkpoint, lora=tmp_path / lora.FILE)
    assert weights == [model_fingerprint(load(checkpoint)), model_fingerprint(adapted)]
    assert (read_video(tmp_path / "base.mp4") != read_video(tmp_path / "adapted.mp4")).any()


def test_lines_of_a_prompts_file_have_settings_of_their_own(checkpoint, tmp_path):
    (tmp_path / "prompts.jsonl").write_text(
        '{"prompt": "a red circle moves left", "seed": 4, "output": "red.mp4"}\n'
        '{"prompt": "a blue square bounces", "seconds": 0.5, "negative_prompt": "a red circle"}\n'
    )
    arguments = ["--checkpoint", checkpoint, "--frames", 5, "--output", tmp_path / "v.mp4", "--quiet", "--crf", 1]
    assert run("--prompts-file", tmp_path / "prompts.jsonl", *arguments) == 0
    videos = {path.name: read_video(path) for path in sorted(tmp_path.glob("*.mp4"))}
    assert {name: len(video) for name, video in videos.items()} == {"red.mp4": 5, "v-002.mp4": 12}
    run(PROMPT, *arguments, "--seed", 4)
    np.testing.assert_array_equal(read_video(tmp_path / "v.mp4"), videos["red.mp4"])


def test_a_prompt_of_the_released_test_set_continues_its_clip_of_16_frames(checkpoint, tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (16, 16, 24, 3), dtype=np.uint8)
    with VideoWriter(tmp_path / "clip.mp4", 24, crf=1) as writer:
        writer.write(frames)
    (tmp_path / "prompts.txt").write_text("a red circle moves left||clip.mp4\n")
    arguments = ["--checkpoint", checkpoint, "--frames", 30, "--output", tmp_path / "v.mp4", "--quiet", "--crf", 1]
    with pytest.warns(UserWarning, match="has 16 frames; its first one is held for 1 more, to make 17"):
        assert run("--prompts-file", tmp_path / "prompts.txt", *arguments) == 0
    start, made = read_video(tmp_path / "clip.mp4"), read_video(tmp_path / "v.mp4")
    assert len(made) == 30
    # H.264 has been there twice: near, not equal; frames of noise are far from each other.
    assert np.abs(made[1:17].astype(int) - start).mean() < 0.5 * np.abs(start[1:].astype(int) - start[:-1]).mean()


def test_two_videos_of_one_name_are_refused(checkpoint, tmp_path, monkeypatch, capsys):
    (tmp_path / "prompts.csv").write_text("prompt,output\na red circle,v-002.mp4\na blue square,\n")
    arguments = ["--prompts-file", tmp_path / "prompts.csv", "--checkpoint", checkpoint, "--output", tmp_path / "v.mp4"]
    code, line = mistake(capsys, monkeypatch, *arguments)
    assert code == 2
    assert "two videos would be written to" in line


def test_a_start_clip_begins_the_video(checkpoint, tmp_path):
    first = tmp_path / "first.mp4"
    run(PROMPT, "--checkpoint", checkpoint, "--frames", 20, "--output", first, "--quiet", "--crf", 1)
    longer = tmp_path / "longer.mp4"
    run(PROMPT, "--checkpoint", checkpoint, "--frames", 50, "--start", first, "--output", longer, "--quiet", "--crf", 1)
    start, video = read_video(first), read_video(longer)
    assert len(video) == 50
    # H.264 has been there twice, so the frames are alike, not equal; a frame of noise is unlike the next one.
    change = np.abs(start[1:].astype(int) - start[:-1]).mean()
    assert np.abs(video[: len(start)].astype(int) - start).mean() < 0.5 * change


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--frames", "0"], "frames 0 is not possible"),
        (["--start", "absent.mp4"], "absent.mp4 does not exist"),
        ([], "v-003.resume.npz is left of an interrupted run; continue it with --resume, or delete that file"),
    ],
)
def test_mistakes_that_need_no_model_are_told_before_one_is_opened(tmp_path, monkeypatch, capsys, arguments, message):
    def forbidden(*_, **__):
        raise AssertionError("a model was opened")

    monkeypatch.setattr("pavdm_jax.checkpoints.load.load", forbidden)
    monkeypatch.chdir(tmp_path)
    if not arguments:
        (tmp_path / "v-003.resume.npz").touch()  # of the second batch
    code, line = mistake(
        capsys, monkeypatch, PROMPT, "--samples", 4, "--batch-size", 2, "--output", "v.mp4", *arguments
    )
    assert (code, message in line) == (2, True), line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompts-file", "p.jsonl", "--prompt-at", "1", "a"], "second 1 would begin after the end"),  # its last line
        ([PROMPT, "--method", "replacement", "--prompt-at", "1", "a"], "replacement takes one prompt"),
        ([PROMPT, "--fixed-length"], "fixed_length starts from a known video"),
        ([PROMPT, PROMPT, "--frames", "inf"], "--frames inf makes videos until Ctrl-C, and others would wait"),
    ],
    ids=lambda value: value[-2] if isinstance(value, list) else "",
)
def test_mistakes_of_the_method_are_told_before_the_first_video(
    checkpoint, tmp_path, monkeypatch, capsys, arguments, message
):
    def forbidden(*_, **__):
        raise AssertionError("the text encoder was at work")

    monkeypatch.setattr("pavdm_jax.generation.prompts.encode_prompts", forbidden)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b", "seconds": 0.5}\n')
    code, line = mistake(capsys, monkeypatch, *arguments, "--checkpoint", checkpoint, "--output", "v.mp4")
    assert (code, message in line) == (2, True), line
    assert not list(tmp_path.glob("*.mp4"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is no prompt"),
        ([" "], "a prompt is empty"),
        (["\u200b\u2060\x07"], "a prompt is empty"),
        (["--prompts-file", "empty.txt"], "holds no prompt"),
        (["--prompts-file", "absent.txt"], "absent.txt"),
        ([PROMPT, "--frames", "0"], "frames 0"),
        ([PROMPT, "--frames", "many"], "many"),
        ([PROMPT, "--frames=--"], "--frames --"),
        ([PROMPT, "--frames", "--5"], "error: --frames --5 is not a number of frames"),
        ([PROMPT, "--fps", "0.0004"], "fps must be 0.01 to 1000"),
        ([PROMPT, "--seconds", "1e308"], "seconds 1e+308"),
        ([PROMPT, "--output", "x" * 243 + ".mp4"], "longer than 220 bytes"),
        ([PROMPT + "\x1b[31m\0"], "is not text"),
        ([PROMPT, "--height", "17"], "16"),
        ([PROMPT, "--resolution", "241p"], "241p"),
        ([PROMPT, "--start", "absent.mp4"], "absent.mp4"),
        ([PROMPT, "--start", "empty.txt"], "empty.txt"),
        ([PROMPT, "--steps", "5"], "use 3 or 6"),
        ([PROMPT, "--frame", "12"], "did you mean --frames"),
        ([PROMPT, "--crf", "99"], "crf"),
        ([PROMPT, "--samples", "0"], "samples"),
        ([PROMPT, "--chunk-size", "1" + "0" * 30], "is too long"),
        ([PROMPT, "--steps", "30000"], "steps must be at most"),
        ([PROMPT, "--height", "1000000", "--width", "1000000"], "are too large"),
        ([PROMPT, "--guidance-scale", "1e39"], "guidance_scale must be"),
        ([PROMPT, "--output", "v.MP4"], "must end in .mp4"),
        ([PROMPT, "--prompt-at", "soon", "a"], "soon"),
        ([PROMPT, "--frames", "100", "--seconds", "0.5"], "frames 100 and seconds 0.5 both say how long"),
        ([PROMPT, "--start", "video.mp4"], "video.mp4 is the start clip itself, and would be overwritten"),
        ([PROMPT, "--start", "video.gif", "--gif"], "video.gif is the start clip itself"),
        ([PROMPT, "--start", "video.partial.mp4"], "video.partial.mp4 is the start clip itself"),
        ([PROMPT, "--height", "8", "--width", "16400"], "frames of 8x16400 pixels are too large"),
        ([PROMPT, "--checkpoint", "absent"], "absent"),
        ([PROMPT, "--checkpoint", "no-model", "--lora", "absent"], "there are no LoRA adapters absent"),
        ([PROMPT, "--output", "video.exe"], "video.exe"),
        ([PROMPT, "--output", "empty.txt/video.mp4"], "video.mp4"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_mistakes_are_one_line_and_exit_code_2(checkpoint, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("\n# nothing\n")
    if "--checkpoint" not in arguments:
        arguments = [*arguments, "--checkpoint", checkpoint]
    code, line = mistake(capsys, monkeypatch, *arguments)
    assert code == 2
    assert message in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.txt"]


def test_a_full_disk_is_one_line(checkpoint, tmp_path, monkeypatch, capsys):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    arguments = [PROMPT, "--checkpoint", checkpoint, "--frames", 40, "--output", tmp_path / "v.mp4", "--quiet"]
    run(
        *arguments[:-2], tmp_path / "before.mp4", "--quiet"
    )  # keeps the features of the prompt, for which there is room yet
    monkeypatch.setattr("pavdm_jax.video.writer.os.fsync", full)
    code, line = mistake(capsys, monkeypatch, *arguments)
    assert code == 1
    assert "disk is full" in line
    assert not (tmp_path / "v.mp4").exists()
