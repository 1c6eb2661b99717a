"""What is measured of generation and of a loader, and the command's mistakes."""

import json

import pytest
from support.small_videos import write_examples
from support.tiny_model import CHUNK, PROMPT, tiny_model

from pavdm_jax import benchmark
from pavdm_jax.checkpoints.model_folder import save_model


def test_the_benchmark_measures_a_video(tmp_path):
    save_model(tmp_path / "tiny", tiny_model())
    measured = benchmark.measure(str(tmp_path / "tiny"), PROMPT, 2 * CHUNK, 2, "bfloat16", began=0.0)
    assert measured["frames"] == 2 * CHUNK
    assert 0 < measured["first_frames_seconds"] < 60
    assert measured["frames_per_second"] == pytest.approx(measured["frames"] / measured["generate_seconds"])
    assert measured["peak_memory_mb"] > 50
    json.dumps(measured)


@pytest.fixture
def run(capsys):
    """Run `pavdm benchmark` in this process: exit code, standard output, standard error."""

    def call(*arguments):
        with pytest.raises(SystemExit) as end:
            benchmark.main([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        return end.value.code, shown.out, shown.err

    return call


CONFIG = """
from pavdm_jax.config import tiny
from pavdm_jax.training.config import *
stage = Stage('joint', JointReconstruction(), VideoData('elsewhere.csv'), ('vae',), 1, 2)
config = TrainConfig(tiny(), (stage,))
"""


def test_the_loader_is_timed_against_a_step_with_data_of_the_command_line(tmp_path, monkeypatch, run):
    (tmp_path / "config.py").write_text(CONFIG)
    monkeypatch.setattr("pavdm_jax.training.start.start_model", lambda config: tiny_model())
    common = ["--loader", "--config", tmp_path / "config.py", "--data.manifest", write_examples(tmp_path)]
    code, told, _ = run(*common, "--step-seconds", "1e-9", "--batches", 2, "--batch-size", 3)
    assert code == 0
    assert "a batch of 3" in told
    assert "steps wait for the loader" in told
    for arguments, message in (
        ([*common, "--step-seconds", 1, "--stage", 1], "stage 1: the config has 1 stages"),
        ([*common, "--step-seconds", 0], "step_seconds must be above 0, not 0.0"),
        (common, "--step-seconds is missing"),
        ([*common, "--data.manifesto", "x"], "there is no option --data.manifesto; did you mean --data.manifest?"),
        (["--loader"], "no config given"),
    ):
        code, told, line = run(*arguments)
        assert (code, told) == (2, "")
        assert line.startswith(f"error: {message}")
        assert line.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--frame", "3"], "there is no option --frame; did you mean --frames?"),
        (["--frames"], "frames names no length; give at least one"),
        (["--frames", "many"], "--frames: "),
        (["--output", "numbers.txt"], "output numbers.txt: the name must end in .json"),
        (["--compile-only"], "--compile-only needs the chips to compile for, such as v5e:1x1"),
        (["--compile-only", "v4:1x1", "h10:1"], "there is no chip 'h10'"),
        (["--frames", "34", "0"], "frames 0 is not possible"),
        (["--segment", "0"], "segment must be 1 to"),
        (["--compile-only", "v4:1x1", "--program", "text"], "there is no option --program; did you mean --programs?"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments, message, run):
    code, told, line = run(*arguments)
    assert (code, told) == (2, "")
    assert line.startswith(f"error: {message}")
    assert line.count("\n") == 1
