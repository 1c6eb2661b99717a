"""The log: its table, and the judgement of the first losses."""

import dataclasses

import pytest

from pavdm_jax.config import OPEN_SORA_1_2, STDIT3_3B, tiny
from pavdm_jax.errors import ConfigError
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


def test_a_line_with_a_field_too_many_or_cut_short_keeps_its_others(tmp_path):
    (tmp_path / "log.csv").write_text("stage,step,loss\na,1,0.5,7,8\na,2,0.4\na,3\na,")
    Table(tmp_path / "log.csv", 3).write({"stage": "a", "step": 4, "loss": 0.25})
    assert (tmp_path / "log.csv").read_text().split() == ["stage,step,loss", "a,1,0.5", "a,2,0.4", "a,3,", "a,4,0.25"]


@pytest.mark.parametrize("content", [b"time,loss\n1,2\n", b"stage,step\na,\xff\n", b"step\n" + b"1" * 5000 + b"\n"])
def test_what_is_no_log_is_left_alone(tmp_path, content):
    (tmp_path / "log.csv").write_bytes(content)
    with pytest.raises(ConfigError, match=r"log\.csv is damaged, or no log of a training run; move it away"):
        Table(tmp_path / "log.csv", 3)
    assert (tmp_path / "log.csv").read_bytes() == content
