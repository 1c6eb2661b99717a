"""SIGTERM outside of training steps: nothing would be lost, so the run ends at once."""

import signal

import pytest

from pavdm_jax.checkpoints import model_folder
from pavdm_jax.training.preemption import Preempted, Preemption


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
