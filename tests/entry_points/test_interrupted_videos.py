"""Videos that end early: kill and resume, Ctrl-C, records, and files that another run has left or is writing."""

import contextlib
import errno
import os
import random
import signal
import subprocess
import sys
import time
import warnings

import jax
import numpy as np
import pytest
from support.command_line import mistake, run
from support.nightly import nightly
from support.tiny_model import CHUNK, PROMPT

from pavdm_jax import make_video
from pavdm_jax.errors import ConfigError
from pavdm_jax.generation.progressive import ProgressiveStream
from pavdm_jax.generation.recording import record_path
from pavdm_jax.video.clips import read_video
from pavdm_jax.video.writer import VideoWriter


def test_kill_and_resume_give_the_same_file(checkpoint, tmp_path):
    arguments = [PROMPT, "--checkpoint", checkpoint, "--frames", str(60 * CHUNK), "--quiet"]
    killed, whole = tmp_path / "killed.mp4", tmp_path / "whole.mp4"
    environment = {**os.environ, "PAVDM_CACHE": jax.config.jax_compilation_cache_dir}
    command = [sys.executable, "-m", "pavdm_jax", *arguments, "--output", str(killed)]
    process = subprocess.Popen(command, env=environment)
    record, partial = tmp_path / "killed.resume.npz", tmp_path / "killed.partial.mp4"
    deadline = time.monotonic() + 300
    while not (record.exists() and partial.exists() and partial.stat().st_size > 20_000):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not killed.exists()
    assert 0 < len(read_video(partial)) < 60 * CHUNK  # what is written plays

    assert run(*arguments, "--output", killed, "--resume") == 0
    assert run(*arguments, "--output", whole) == 0
    assert killed.read_bytes() == whole.read_bytes()
    assert not record.exists()
    assert not partial.exists()


@nightly
def test_fifty_kills_at_random_moments_do_not_change_a_video(checkpoint, tmp_path):
    arguments = [PROMPT, "--checkpoint", checkpoint, "--frames", str(1500 * CHUNK), "--quiet"]
    killed, whole, chance = tmp_path / "killed.mp4", tmp_path / "whole.mp4", random.Random(2)
    command = [sys.executable, "-m", "pavdm_jax", *arguments, "--output", str(killed), "--resume"]
    record = tmp_path / "killed.resume.npz"
    for kill in range(50):
        began = record.stat().st_mtime_ns if record.exists() else 0
        process = subprocess.Popen(command, env={**os.environ, "PAVDM_CACHE": jax.config.jax_compilation_cache_dir})
        at = time.monotonic() + 300
        while (not record.exists() or record.stat().st_mtime_ns == began) and time.monotonic() < at:
            assert process.poll() is None, f"over after {kill} kills"
            time.sleep(0.01)
        time.sleep(chance.uniform(0.0, 0.3))
        process.kill()
        process.wait()
        assert not killed.exists()
    assert run(*arguments, "--output", killed, "--resume") == 0
    assert run(*arguments, "--output", whole) == 0
    assert killed.read_bytes() == whole.read_bytes()


@pytest.fixture
def ctrl_c(monkeypatch):
    """Ctrl-C arrives once, before the shift of the given number."""
    advance = ProgressiveStream.advance
    pending = []

    def interrupted(stream):
        if pending and stream.round >= pending[0]:
            pending.clear()
            raise KeyboardInterrupt
        return advance(stream)

    monkeypatch.setattr(ProgressiveStream, "advance", interrupted)
    return pending.append


def test_ctrl_c_leaves_a_video_that_plays_and_resumes(checkpoint, tmp_path, ctrl_c):
    output = tmp_path / "v.mp4"
    arguments = [PROMPT, "--checkpoint", checkpoint, "--frames", 8 * CHUNK, "--output", output, "--quiet"]
    ctrl_c(6)
    assert run(*arguments) == 130
    assert not output.exists()
    assert len(read_video(tmp_path / "v.partial.mp4")) == 4 * CHUNK
    assert run(*arguments, "--resume") == 0
    assert len(read_video(output)) == 8 * CHUNK


def test_a_ctrl_c_that_python_drops_is_heard(checkpoint, tmp_path, monkeypatch):
    """Python drops an exception that is raised in a callback of the garbage collection, where JAX has one."""
    advance = ProgressiveStream.advance

    def dropped(stream):
        if stream.round == 6:
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
        return advance(stream)

    monkeypatch.setattr(ProgressiveStream, "advance", dropped)
    arguments = [PROMPT, "--checkpoint", checkpoint, "--frames", 8 * CHUNK, "--output", tmp_path / "v.mp4", "--quiet"]
    with pytest.raises(SystemExit) as ended:
        make_video.main([str(argument) for argument in arguments])
    assert ended.value.code == 130
    assert len(read_video(tmp_path / "v.partial.mp4")) == 6 * CHUNK


def test_ctrl_c_finishes_a_video_without_end(checkpoint, tmp_path, ctrl_c):
    output = tmp_path / "v.mp4"
    ctrl_c(8)
    assert run(PROMPT, "--checkpoint", checkpoint, "--frames", "inf", "--output", output, "--quiet") == 0
    assert len(read_video(output)) == 6 * CHUNK


def test_resuming_another_request_is_refused(checkpoint, tmp_path, monkeypatch, capsys, ctrl_c):
    arguments = [PROMPT, "--checkpoint", checkpoint, "--frames", 8 * CHUNK, "--output", tmp_path / "v.mp4", "--quiet"]
    ctrl_c(4)
    assert run(*arguments) == 130
    code, line = mistake(capsys, monkeypatch, *arguments, "--resume", "--seed", 9)
    assert code == 2
    assert "seeds differ" in line
    with jax.default_matmul_precision("bfloat16"):
        code, line = mistake(capsys, monkeypatch, *arguments, "--resume")
    assert code == 2
    assert "matmul_precision differ" in line


def test_an_edited_record_is_not_resumed(checkpoint, tmp_path, monkeypatch, capsys, ctrl_c):
    arguments = [PROMPT, "--checkpoint", checkpoint, "--frames", 8 * CHUNK, "--output", tmp_path / "v.mp4", "--quiet"]
    ctrl_c(4)
    assert run(*arguments) == 130
    record = tmp_path / "v.resume.npz"
    whole = dict(np.load(record))
    edits = [{name: np.zeros(3) if number % 2 else np.asarray("x")} for number, name in enumerate(whole)]
    edits += [{"round": whole["round"] + 1}, {"latents": whole["latents"] * 2}]
    for edit in edits:
        np.savez(record, **(whole | edit))
        code, line = mistake(capsys, monkeypatch, *arguments, "--resume")
        assert code == 2
        assert "cannot be read (it has been changed)" in line
    np.savez(record, **whole)
    assert run(*arguments, "--resume") == 0


def test_a_changed_partial_video_is_started_again_after_the_record_that_is_named_is_deleted(
    checkpoint, tmp_path, monkeypatch, capsys, ctrl_c
):
    arguments = [PROMPT, "--checkpoint", checkpoint, "--frames", 5 * CHUNK, "--output", tmp_path / "v.mp4", "--quiet"]
    ctrl_c(4)
    assert run(*arguments) == 130
    partial, record = tmp_path / "v.partial.mp4", tmp_path / "v.resume.npz"
    whole = partial.read_bytes()
    for changed, says in (
        (whole[:-1] + b"x", "has changed since it was written"),
        (whole[:-9], f"is not the file to resume: {len(whole) - 9} bytes instead of at least {len(whole)}"),
    ):
        partial.write_bytes(changed)
        code, line = mistake(capsys, monkeypatch, *arguments, "--resume")
        assert (code, line) == (2, f"error: {partial} {says}; delete {record} to start again without --resume")
    record.unlink()
    assert run(*arguments) == 0


def test_a_video_that_another_process_writes_is_not_told_as_left_over(checkpoint, tmp_path, monkeypatch, capsys):
    output = tmp_path / "v.mp4"
    record_path(output).touch()
    with VideoWriter(output, 24) as first:
        code, line = mistake(capsys, monkeypatch, PROMPT, "--checkpoint", checkpoint, "--output", output)
        assert (code, "v.partial.mp4 is being written by another process; wait for it" in line) == (2, True)
        first.write(np.zeros((1, 16, 24, 3), np.uint8))
    assert len(read_video(output)) == 1


def test_links_in_the_place_of_a_record_or_a_position_lead_nowhere(checkpoint, tmp_path, ctrl_c):
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "elsewhere").mkdir()
    output = tmp_path / "v.mp4"
    arguments = [PROMPT, "--checkpoint", checkpoint, "--frames", 8 * CHUNK, "--output", output, "--quiet", "--resume"]
    record_path(output).symlink_to(tmp_path / "precious")
    with pytest.raises(ConfigError, match=r"v\.resume\.npz cannot be read"):
        run(*arguments)
    assert (tmp_path / "precious").read_text() == "kept"


def test_a_partial_video_without_its_record_is_started_anew_and_told(checkpoint, tmp_path, ctrl_c):
    output = tmp_path / "v.mp4"
    arguments = [PROMPT, "--checkpoint", checkpoint, "--frames", 8 * CHUNK, "--output", output, "--quiet", "--resume"]
    ctrl_c(6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a first call with --resume, as job scripts make it, warns of nothing
        assert run(*arguments) == 130
    record_path(output).unlink()
    with pytest.warns(UserWarning, match=r"there is no record .* to resume; it is started from the beginning"):
        assert run(*arguments) == 0
    assert len(read_video(output)) == 8 * CHUNK


def test_a_finished_video_of_a_batch_is_not_made_anew_without_a_word(checkpoint, tmp_path, monkeypatch, capsys):
    arguments = [PROMPT, "--samples", 2, "--checkpoint", checkpoint, "--frames", CHUNK, "--output", tmp_path / "v.mp4"]
    assert run(*arguments, "--quiet") == 0
    (tmp_path / "v-002.mp4").unlink()
    before = (tmp_path / "v-001.mp4").stat().st_mtime_ns
    code, line = mistake(capsys, monkeypatch, *arguments, "--quiet", "--resume", "--batch-size", 2)
    assert (code, (tmp_path / "v-001.mp4").stat().st_mtime_ns) == (2, before)
    assert "v-001.mp4 is finished and" in line and "resume with the --batch-size of that run" in line
    assert run(*arguments, "--quiet", "--resume") == 0
    assert (tmp_path / "v-001.mp4").stat().st_mtime_ns == before and (tmp_path / "v-002.mp4").exists()


def test_a_video_that_is_replaced_is_told(checkpoint, tmp_path):
    arguments = [PROMPT, "--checkpoint", checkpoint, "--frames", CHUNK, "--output", tmp_path / "v.mp4", "--quiet"]
    assert run(*arguments) == 0
    with pytest.warns(UserWarning, match=r"v\.mp4 exists and is replaced when the new video is whole"):
        assert run(*arguments, "--seed", 2) == 0


def test_resume_does_not_replace_a_finished_video_of_other_options(checkpoint, tmp_path, monkeypatch, capsys):
    output = tmp_path / "v.mp4"
    arguments = [PROMPT, "--checkpoint", checkpoint, "--frames", CHUNK, "--output", output, "--quiet"]
    assert run(*arguments) == 0
    before = output.read_bytes()
    code, line = mistake(capsys, monkeypatch, *arguments, "--resume", "--seed", 9)
    assert (code, output.read_bytes()) == (2, before)
    assert "was made with other options" in line
    assert run(*arguments, "--resume") == 0


def test_ctrl_c_twice_while_frames_are_written_cuts_no_file(checkpoint, tmp_path, monkeypatch):
    """They are written by another thread, which ends what it has begun before the file is closed."""
    arguments = [PROMPT, "--checkpoint", checkpoint, "--frames", 8 * CHUNK, "--quiet"]
    assert run(*arguments, "--output", tmp_path / "whole.mp4") == 0
    fsync, calls = os.fsync, []

    def slow(descriptor):
        calls.append(descriptor)
        if len(calls) == 4:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.3)
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr("pavdm_jax.video.writer.os.fsync", slow)
        with pytest.raises(SystemExit) as ended:
            make_video.main([str(argument) for argument in (*arguments, "--output", tmp_path / "v.mp4")])
    assert ended.value.code == 130 and len(calls) >= 4
    assert run(*arguments, "--output", tmp_path / "v.mp4", "--resume") == 0
    assert (tmp_path / "v.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_a_fault_of_the_writer_is_not_lost_behind_ctrl_c(checkpoint, tmp_path, monkeypatch, capsys):
    advance, broke = ProgressiveStream.advance, []

    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    def interrupted(stream):
        if broke:
            raise KeyboardInterrupt
        if stream.frames_done:
            broke.append(stream.round)
            time.sleep(1)  # until what came before is written
            monkeypatch.setattr(VideoWriter, "write", broken)
        return advance(stream)

    monkeypatch.setattr(ProgressiveStream, "advance", interrupted)
    arguments = [PROMPT, "--checkpoint", checkpoint, "--frames", 8 * CHUNK, "--output", tmp_path / "v.mp4", "--quiet"]
    with pytest.raises(SystemExit) as ended:
        make_video.main([str(argument) for argument in arguments])
    assert ended.value.code == 1 and "Input/output error" in capsys.readouterr().err
