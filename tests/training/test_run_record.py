"""Whose run a folder is: which configs may go on in it, and what is said to the others."""

import contextlib
import dataclasses
import errno
import json

import jax
import pytest
from support.tiny_model import TINY

from pavdm_jax import outputs
from pavdm_jax.errors import ConfigError
from pavdm_jax.training.config import (
    LoRAConfig,
    OptimizerConfig,
    ProgressiveDiffusion,
    SampleConfig,
    ShapesData,
    Stage,
    TrainConfig,
    UniformDiffusion,
    VideoData,
)
from pavdm_jax.training.loop import extension
from pavdm_jax.training.preemption import Preempted
from pavdm_jax.training.run_record import RECORD, check_claim, claim

STAGE = Stage("base", UniformDiffusion(), VideoData("x.csv", 119), ("stdit3",), 6, 2)
CONFIG = TrainConfig(TINY, (STAGE,), init_from="demo")


def with_stage(**changes):
    return dataclasses.replace(CONFIG, stages=(dataclasses.replace(STAGE, **changes),))


@pytest.fixture
def folder(tmp_path):
    with claim(tmp_path / "run", CONFIG) as before:
        assert before is None
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (dataclasses.replace(CONFIG, seed=1), "seed 0, not 1"),
        (dataclasses.replace(CONFIG, init_from=None), "init_from demo, not None"),
        (dataclasses.replace(CONFIG, model=dataclasses.replace(TINY, fps=8.0)), r"model\.fps 24\.0, not 8\.0"),
        (with_stage(optimizer=OptimizerConfig(3e-4)), r"stages\.0\.optimizer\.learning_rate 0\.0001, not 0\.0003"),
        (with_stage(data=VideoData("y.csv", 119)), r"stages\.0\.data\.manifest x\.csv, not y\.csv"),
        (with_stage(data=ShapesData(119)), r"stages\.0\.data\.kind VideoData, not ShapesData"),
        (with_stage(objective=UniformDiffusion(masks=None)), r"stages\.0\.objective\.masks absent, not None"),
        (with_stage(lora=LoRAConfig()), r"stages\.0\.lora\.rank"),
        (with_stage(steps=5), r"stages\.0\.steps 6, not 5: the last stage may get more steps, not fewer"),
        (
            dataclasses.replace(CONFIG, stages=(STAGE, dataclasses.replace(STAGE, name="more"))),
            r"stages\.1\.name absent, not more",
        ),
    ],
)
def test_a_run_does_not_go_on_with_another_config_and_the_field_is_named(folder, changed, says):
    with pytest.raises(ConfigError, match=f"run holds a run with {says}"):
        check_claim(folder, changed)


def test_a_stage_that_is_gone_is_named(tmp_path):
    two = dataclasses.replace(CONFIG, stages=(STAGE, dataclasses.replace(STAGE, name="more")))
    with claim(tmp_path / "run", two):
        pass
    with pytest.raises(ConfigError, match=r"stages\.1\.name more, not absent"):
        check_claim(tmp_path / "run", CONFIG)
    longer = dataclasses.replace(two, stages=(dataclasses.replace(STAGE, steps=7), two.stages[1]))
    with pytest.raises(ConfigError, match=r"stages\.0\.steps 6, not 7; choose"):  # only the last stage may get more
        check_claim(tmp_path / "run", longer)


def test_what_is_kept_and_where_it_is_computed_may_change(folder):
    seen = SampleConfig(every=3, prompts=("a", "b"))
    changed = dataclasses.replace(
        CONFIG,
        output="elsewhere",
        mesh="fsdp=2",
        remat="full",
        save_every=1,
        keep=9,
        keep_best=0,
        log_every=7,
        samples=seen,
    )
    changed = dataclasses.replace(changed, stages=with_stage(data=VideoData("x.csv", 119, workers=4)).stages)
    assert check_claim(folder, changed) == 6


def test_the_last_stage_may_get_more_steps_and_the_record_follows(folder):
    longer = with_stage(steps=8)
    with claim(folder, longer) as before:
        assert before == 6
    assert check_claim(folder, longer) == 8
    with pytest.raises(ConfigError, match="more steps, not fewer"):
        check_claim(folder, CONFIG)


def test_what_an_extension_does_to_the_learning_rate_is_said():
    decays = Stage("base", ProgressiveDiffusion(), STAGE.data, ("stdit3",), 8, 2, OptimizerConfig(1e-3, 0))
    assert extension(decays, 6) == (
        "base: extended from 6 to 8 steps; the learning rate goes on along the new schedule: at step 6 it is 0.000146, "
        "not 0"
    )
    stays = dataclasses.replace(decays, optimizer=OptimizerConfig(1e-3, 2, decay=False))
    assert extension(stays, 6) == "base: extended from 6 to 8 steps; the learning rate stays 0.001"


def test_fields_that_an_older_record_does_not_have_take_their_default(folder):
    record = json.loads((folder / RECORD).read_text())
    del record["tokenizer"], record["stages"][0]["objective"]["masks"], record["stages"][0]["freeze"]
    (folder / RECORD).write_text(json.dumps(record))
    assert check_claim(folder, CONFIG) == 6
    with pytest.raises(ConfigError, match=r"stages\.0\.objective\.masks\.image_head 0\.22, not 0\.5"):
        masks = dataclasses.replace(STAGE.objective.masks, image_head=0.5)
        check_claim(folder, with_stage(objective=UniformDiffusion(masks=masks)))


def test_a_damaged_record_and_one_of_an_earlier_version_are_refused_with_the_remedy(folder):
    (folder / RECORD).write_text("{")
    with pytest.raises(ConfigError, match=r"train_config\.json is damaged; choose another --output"):
        check_claim(folder, CONFIG)
    (folder / RECORD).rename(folder / "train_config.txt")
    with pytest.raises(ConfigError, match=r"earlier version of pavdm_jax .*--init-from .*run --output NEW"):
        check_claim(folder, CONFIG)


def test_a_record_that_is_not_text_is_damaged(folder):
    for content in (b"\xff", b"[" * 100_000, b'{"stages": [{"steps": "6"}]}'):
        (folder / RECORD).write_bytes(content)
        with pytest.raises(ConfigError, match=r"train_config\.json is damaged; choose another --output"):
            check_claim(folder, CONFIG)


@pytest.mark.parametrize("name", ["model", "results", "lora.safetensors"])
def test_a_folder_that_holds_the_results_of_something_else_is_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(ConfigError, match=f"is no run of this trainer, but holds {name}; choose another --output"):
        check_claim(tmp_path, CONFIG)


def test_a_second_process_is_refused_and_leaves_the_record_of_the_first(tmp_path):
    with claim(tmp_path / "run", CONFIG):
        with pytest.raises(ConfigError, match=r"another process trains into .*run; wait for it, or choose another"):
            claim(tmp_path / "run", CONFIG).__enter__()
        assert check_claim(tmp_path / "run", CONFIG) == 6
    with claim(tmp_path / "run", CONFIG) as before:
        assert before == 6


@pytest.mark.parametrize(
    ("error", "made_before", "kept"),
    [
        (ConfigError, False, False),
        (ConfigError, True, True),
        (KeyboardInterrupt, False, True),
        (Preempted, False, True),
    ],
)
def test_a_failed_start_removes_the_record_that_it_made_itself(tmp_path, error, made_before, kept):
    run = tmp_path / "run"
    if made_before:
        with claim(run, CONFIG):
            pass
    with pytest.raises(error), claim(run, CONFIG):
        raise error("SIGTERM")
    assert (run / RECORD).exists() == kept


def test_a_window_whose_chunks_wait_is_of_sampling_only():
    waiting = dataclasses.replace(TINY, window=dataclasses.replace(TINY.window, lag=2))
    with pytest.raises(ConfigError, match=r"model\.window\.lag 2 is of sampling only; train a window without it"):
        dataclasses.replace(CONFIG, model=waiting)


def test_a_lock_that_leads_elsewhere_is_not_followed(tmp_path):
    """Before, its target was emptied."""
    (tmp_path / "run").mkdir()
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(ConfigError, match=r"\.lock is a symbolic link; remove it"):
        claim(tmp_path / "run", CONFIG).__enter__()
    assert (tmp_path / "precious").read_text() == "kept"


def test_a_run_does_not_go_on_with_products_of_another_precision(folder):
    with (
        jax.default_matmul_precision("bfloat16"),
        pytest.raises(ConfigError, match="matmul_precision None, not bfloat16"),
    ):
        check_claim(folder, CONFIG)
    record = json.loads((folder / RECORD).read_text())
    del record["matmul_precision"]  # as before it was noted
    (folder / RECORD).write_text(json.dumps(record))
    assert check_claim(folder, CONFIG) == 6


@pytest.mark.parametrize(("number", "goes_on"), [(errno.EACCES, False), (errno.ENOLCK, True)])
def test_a_lock_of_others_is_no_file_system_without_locks(tmp_path, monkeypatch, number, goes_on):
    def refused(*_):
        raise OSError(number, "refused")

    monkeypatch.setattr(outputs.fcntl, "flock", refused)
    with contextlib.nullcontext() if goes_on else pytest.raises(OSError, match="refused"):
        claim(tmp_path / "run", CONFIG).__enter__()


@pytest.mark.parametrize("name", ["stages", "samples", "tensorboard", "train.log", "train_config.json"])
def test_nothing_is_written_or_deleted_through_a_link_in_a_run(tmp_path, name):
    (tmp_path / "run").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run" / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=f"{name} is a symbolic link, through which"):
        claim(tmp_path / "run", CONFIG).__enter__()
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_run_may_be_a_link_itself(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    with claim(tmp_path / "run", CONFIG):
        assert (tmp_path / "elsewhere" / RECORD).exists()
