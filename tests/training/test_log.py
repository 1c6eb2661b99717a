"""The log: its table, and the judgement of the first losses."""

import dataclasses

import pytest

from pavdm_jax.config import OPEN_SORA_1_2, STDIT3_3B, tiny
from pavdm_jax.training.log import Table, loss_warning


@pytest.mark.parametrize(
    ("loss", "loaded", "says"),
    [
        (4.5, True, "not loaded"),
        (1.0, True, "fresh model"),
        (0.45, True, None),
        (1.0, False, None),
        (0.01, True, "constant"),
    ],
)
def test_the_loss_of_the_published_models_is_judged(loss, loaded, says):
    for config in (OPEN_SORA_1_2, dataclasses.replace(OPEN_SORA_1_2, stdit3=STDIT3_3B)):
        warning = loss_warning(config, loaded, loss)
        assert warning is None if says is None else says in warning
    assert loss_warning(tiny(), loaded, loss) is None


def test_the_log_drops_lines_that_will_be_made_again_and_takes_new_columns(tmp_path):
    table = Table(tmp_path / "log.csv", 0)
    for step in (1, 2, 3):
        table.write({"stage": "a", "step": step, "loss": step / 3})
    again = Table(tmp_path / "log.csv", 2)
    again.write({"stage": "b", "step": 3, "loss": 0.5, "psnr": 20.0})
    lines = (tmp_path / "log.csv").read_text().split()
    assert lines == [
        "stage,step,seconds,samples_per_second,loss,psnr",
        "a,1,,,0.333333,",
        "a,2,,,0.666667,",
        "b,3,,,0.5,20",
    ]
