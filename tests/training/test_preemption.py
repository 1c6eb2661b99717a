"""SIGTERM and Ctrl-C: within training steps the step is saved; samples are given up; elsewhere the run ends at once."""

import itertools
import signal

import jax
import numpy as np
import pytest
from support.tiny_model import PROMPT, SHAPES, tiny_model

from pavdm_jax.checkpoints import model_folder
from pavdm_jax.checkpoints.model_folder import save_model
from pavdm_jax.checkpoints.run_folder import newest_step
from pavdm_jax.data.loader import batches
from pavdm_jax.errors import ConfigError
from pavdm_jax.training import loop, stage
from pavdm_jax.training.config import OptimizerConfig, SampleConfig, ShapesData, Stage, TrainConfig, UniformDiffusion
from pavdm_jax.training.preemption import Preempted, Preemption


@pytest.fixture(autouse=True)
def handler_of_python():
    """Not that of a command, which an earlier test may have left: it would remember Ctrl-C for later tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_it_is_not_taken_for_damage_of_the_checkpoint_that_is_being_read(monkeypatch, tmp_path):
    class Reader:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def metadata(self, _):
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(model_folder, "_checkpointer", Reader)
    with pytest.raises(Preempted, match="stopped by SIGTERM"), Preemption():
        model_folder.restore_part(tmp_path, {}, None)


@pytest.mark.parametrize(
    ("save_every", "number", "name", "code"),
    [(2, signal.SIGTERM, "SIGTERM", 0), (3, signal.SIGINT, "Ctrl-C", 130), (5, signal.SIGTERM, "SIGTERM", 0)],
)
def test_while_samples_are_made_and_within_steps_it_saves_the_step_and_ends(
    monkeypatch, tmp_path, save_every, number, name, code
):
    """Samples of a large model take minutes, longer than what a scheduler grants."""
    save_model(tmp_path / "start", tiny_model(SHAPES))
    optimizer = OptimizerConfig(3e-3, warmup_steps=2, epsilon=1e-8)
    base = Stage("base", UniformDiffusion(1), ShapesData(17, samples=3), ("stdit3/blocks",), 4, 2, optimizer)
    samples = SampleConfig(every=2, prompts=(PROMPT,), frames=5)

    def run(name):
        config = TrainConfig(
            SHAPES,
            (base,),
            str(tmp_path / name),
            init_from=str(tmp_path / "start"),
            save_every=save_every,
            samples=samples,
        )
        return loop.fit(config)

    made = []
    monkeypatch.setattr(stage, "sample_videos", lambda *_: made.append("whole") or [])
    whole = run("whole")
    assert made == ["whole"] * 2
    with monkeypatch.context() as once:
        once.setattr(stage, "sample_videos", lambda *_: signal.raise_signal(number) or made.append("late"))
        with pytest.raises(Preempted, match=rf"stopped by {name}: step 2 of .* is saved") as stopped:
            run("stopped")
    assert stopped.value.code == code
    assert newest_step(tmp_path / "stopped") == 2
    assert made == ["whole"] * 2
    with monkeypatch.context() as once:  # and within a step
        steps = []
        once.setattr(stage, "check_interrupted", lambda: steps.append(signal.raise_signal(number)))
        with pytest.raises(Preempted, match=rf"stopped by {name}: step 3 of .* is saved"):
            run("stopped")
    assert len(steps) == 1 and newest_step(tmp_path / "stopped") == 3
    jax.tree.map(np.testing.assert_array_equal, run("stopped").params, whole.params)


def test_a_second_ctrl_c_ends_at_once():
    preemption = Preemption()
    with pytest.raises(KeyboardInterrupt), preemption, preemption.steps():
        signal.raise_signal(signal.SIGINT)
        assert preemption.requested(1) and preemption.by == "Ctrl-C"
        signal.raise_signal(signal.SIGINT)


def test_outside_of_steps_ctrl_c_is_what_it_was():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), Preemption():
        assert signal.getsignal(signal.SIGINT) is not before
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_fault_of_the_data_saves_the_step_before(monkeypatch, tmp_path):
    save_model(tmp_path / "start", tiny_model(SHAPES))
    base = Stage("base", UniformDiffusion(1), ShapesData(17, samples=3), ("stdit3/blocks",), 6, 2)
    config = TrainConfig(SHAPES, (base,), str(tmp_path / "run"), init_from=str(tmp_path / "start"), save_every=4)

    def damaged(*arguments):
        yield from itertools.islice(batches(*arguments), 3)
        raise ConfigError("the data is damaged")

    with monkeypatch.context() as once:
        once.setattr(loop, "batches", damaged)
        with pytest.raises(ConfigError, match="the data is damaged"):
            loop.fit(config)
    assert newest_step(tmp_path / "run") == 3
