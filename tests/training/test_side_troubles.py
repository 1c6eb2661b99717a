"""What goes wrong beside the steps of a run ends no training, and lets nobody remove a whole checkpoint."""

import jax
import numpy as np
import pytest
from support.tiny_model import PROMPT, SHAPES, tiny_model

from pavdm_jax.checkpoints.model_folder import save_model
from pavdm_jax.errors import ConfigError
from pavdm_jax.training import checkpoints, loop, stage
from pavdm_jax.training.config import OptimizerConfig, SampleConfig, ShapesData, Stage, TrainConfig, UniformDiffusion
from pavdm_jax.training.log import RunLog


@pytest.fixture
def run(tmp_path):
    save_model(tmp_path / "start", tiny_model(SHAPES))
    optimizer = OptimizerConfig(3e-3, warmup_steps=2, epsilon=1e-8, decay=False)

    def fit(name, steps=4):
        base = Stage("base", UniformDiffusion(1), ShapesData(17, samples=3), ("stdit3/blocks",), steps, 2, optimizer)
        samples = SampleConfig(every=2, prompts=(PROMPT,), frames=5)
        start, output = str(tmp_path / "start"), str(tmp_path / name)
        return loop.fit(TrainConfig(SHAPES, (base,), output, init_from=start, save_every=2, samples=samples))

    return fit


@pytest.mark.parametrize("error", [jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED"), OSError(28, "No space left")])
def test_training_goes_on_without_samples_and_without_a_copy_of_its_log(monkeypatch, capsys, run, error):
    monkeypatch.setattr(stage, "sample_videos", lambda *_: [])
    whole = run("whole")

    def fail(*_):
        raise error

    monkeypatch.setattr(stage, "sample_videos", fail)
    if isinstance(error, OSError):
        monkeypatch.setattr(RunLog, "keep", fail)
    jax.tree.map(np.testing.assert_array_equal, run("troubled").params, whole.params)
    said = capsys.readouterr()
    said = said.out + said.err
    assert f"warning: no samples of step 2: {error}" in said and f"warning: no samples of step 4: {error}" in said
    assert ("warning: the log is not copied now" in said) == isinstance(error, OSError)


@pytest.mark.parametrize(
    ("error", "code", "remedy"),
    [
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory"), 1, "it may be whole: give the same command"),
        (ValueError("401 UNAUTHENTICATED"), 1, "it may be whole: give the same command"),
        (PermissionError(13, "Permission denied"), 1, "it may be whole: give the same command"),
        (ValueError("zarr: checksum does not match"), 2, "remove it to go on from the one before"),
    ],
)
def test_a_checkpoint_is_called_damaged_only_if_it_may_be(monkeypatch, run, error, code, remedy):
    monkeypatch.setattr(stage, "sample_videos", lambda *_: [])
    run("stopped", steps=2)

    def fail(*_, **__):
        raise error

    with monkeypatch.context() as once, pytest.raises(ConfigError, match=remedy) as raised:
        once.setattr(checkpoints.ocp.CheckpointManager, "restore", fail)
        run("stopped")
    assert raised.value.code == code
    run("stopped")
