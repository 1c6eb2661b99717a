"""The trainer on the tiny model: every objective learns, runs resume bit for bit, and mistakes are refused."""

import csv
import dataclasses
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from support.nightly import at_night, nightly
from support.tiny_model import PROMPT, SHAPES, tiny_model

from pavdm_jax import cli, generate, train
from pavdm_jax.checkpoints.load import load
from pavdm_jax.checkpoints.model_folder import save_model
from pavdm_jax.errors import ConfigError
from pavdm_jax.models.model import PARTS
from pavdm_jax.training import loop
from pavdm_jax.training.config import (
    JointReconstruction,
    LatentData,
    OptimizerConfig,
    ProgressiveDiffusion,
    SampleConfig,
    ShapesData,
    SpatialReconstruction,
    Stage,
    TemporalReconstruction,
    TrainConfig,
    UniformDiffusion,
    VideoData,
)
from pavdm_jax.training.log import StageLog
from pavdm_jax.training.start import given_model
from pavdm_jax.training.trained_with import level_patterns
from pavdm_jax.video.clips import read_video
from pavdm_jax.video.writer import VideoWriter

CONFIGS = Path(__file__).parents[2] / "configs"
SPEED = OptimizerConfig(3e-3, warmup_steps=2, epsilon=1e-8)
VAE_STAGES = (
    Stage("spatial", SpatialReconstruction(), ShapesData(1), ("vae/spatial",), 4, 2, SPEED),
    Stage("temporal", TemporalReconstruction(), ShapesData(17), ("vae/temporal",), 3, 1, SPEED),
    Stage("joint", JointReconstruction(decoded_frames=2), ShapesData(17), ("vae/temporal",), 2, 1, SPEED),
)


def read_log(run):
    """The log's lines without their times."""
    with (run / "log.csv").open(newline="") as file:
        return [
            {name: value for name, value in row.items() if name not in ("seconds", "samples_per_second")}
            for row in csv.DictReader(file)
        ]


def first_value(model):
    return np.asarray(jax.tree.leaves(model.params["stdit3"]["blocks"])[0])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a start model and a finished run of the three VAE stages."""
    folder = tmp_path_factory.mktemp("runs")
    save_model(folder / "start", tiny_model(SHAPES))
    loop.fit(config(folder, "vae", *VAE_STAGES))
    return folder


def config(folder, name, *stages, **changes):
    start = str(folder / changes.pop("start", "start"))
    return TrainConfig(SHAPES, stages, str(folder / name), init_from=start, save_every=2, log_every=1, **changes)


def test_the_vae_stages_make_a_model_with_measured_normalisation(runs):
    model = load(runs / "vae")
    assert model.config == SHAPES
    log = (runs / "vae" / "log.csv").read_text()
    assert all(stage.name in log for stage in VAE_STAGES)
    before = load(runs / "vae" / "results" / "1-temporal").params["vae"]["scale"]
    assert float(np.abs(np.asarray(before) - 3.85).min()) > 1e-3
    assert np.all(np.asarray(model.params["vae"]["scale"]) != np.asarray(before))  # the last stage trained the encoder
    named = [line for line in (runs / "vae" / "train.log").read_text().splitlines() if "lowest loss" in line]
    assert len(named) == 1 and "spatial" in named[0]  # later checkpoints are older than their normalisation
    with pytest.raises(ConfigError, match="decoded_frames must be at least 1"):
        JointReconstruction(decoded_frames=0)


@pytest.mark.filterwarnings("ignore:tiny was trained with")
@pytest.mark.parametrize(
    "objective",
    [*at_night(UniformDiffusion(clip_chunks=2)), ProgressiveDiffusion()],
    ids=["UniformDiffusion", "ProgressiveDiffusion"],
)
def test_diffusion_stages_train_the_transformer_and_the_text_encoder_only(runs, objective):
    frames = 17 * (2 if isinstance(objective, UniformDiffusion) else SHAPES.window.slots)
    stage = Stage("diffusion", objective, ShapesData(frames, samples=3), ("stdit3", "t5"), 3, 2, SPEED)
    name = type(objective).__name__
    samples = SampleConfig(every=2, prompts=(PROMPT,), frames=5, seed=3)
    trained, before = loop.fit(config(runs, name, stage, start="vae", samples=samples)), load(runs / "vae")
    (sample,) = (runs / name / "samples").glob("*.mp4")
    assert sample.name == "0000002-0.mp4"
    averaged = load(runs / name / "stages" / "0-diffusion" / "2", PARTS)
    with VideoWriter(runs / "expected.mp4", averaged.config.fps) as writer:
        writer.write(generate(averaged, PROMPT, 5, seed=3))
    np.testing.assert_array_equal(read_video(sample), read_video(runs / "expected.mp4"))
    last = load(runs / name / "stages" / "0-diffusion" / "3", PARTS).params
    jax.tree.map(np.testing.assert_array_equal, last, load(runs / name, PARTS).params)
    jax.tree.map(np.testing.assert_array_equal, trained.params["vae"], before.params["vae"])
    assert np.abs(first_value(trained) - first_value(before)).max() > 0
    assert load(runs / name).config == SHAPES
    patterns = level_patterns(SHAPES, objective)
    for path in (runs / name, runs / name / "stages" / "0-diffusion" / "3"):
        assert load(path).trained_with == patterns
    assert before.trained_with == ()


def test_a_run_that_was_cut_off_ends_like_one_that_was_not(runs, monkeypatch):
    """It stops after a checkpoint in the middle of a stage, and again between stages.

    The other one is the first two stages of `runs`.
    """

    class Killed(Exception):
        pass

    cut = config(runs, "cut", *VAE_STAGES[:2])
    write = StageLog.write
    for last in (3, 4):

        def killing(log, step, metrics, last=last):
            write(log, step, metrics)
            if log.first + step == last:
                raise Killed

        monkeypatch.setattr(StageLog, "write", killing)
        with pytest.raises(Killed):
            loop.fit(cut)
    monkeypatch.setattr(StageLog, "write", write)
    resumed = loop.fit(cut)
    whole = load(runs / "vae" / "results" / "1-temporal", PARTS)
    jax.tree.map(np.testing.assert_array_equal, whole.params, resumed.params)
    rows = read_log(runs / "cut")
    assert len(rows) == 7
    whole_rows = read_log(runs / "vae")[:7]  # which have the columns of the third stage, too
    assert [{name: whole_row[name] for name in row} for row, whole_row in zip(rows, whole_rows, strict=True)] == rows


@nightly
def test_the_spatial_loss_falls_from_random_weights(tmp_path):
    stage = Stage("spatial", SpatialReconstruction(), ShapesData(1), ("vae/spatial",), 20, 2, SPEED)
    loop.fit(TrainConfig(SHAPES, (stage,), output=str(tmp_path / "run"), log_every=1))
    losses = [float(row["loss"]) for row in read_log(tmp_path / "run")]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_an_interruption_that_python_dropped_ends_a_run_before_its_next_step(runs):
    stage = Stage("spatial", SpatialReconstruction(), ShapesData(1), ("vae/spatial/decoder",), 2, 1, SPEED)
    cli.INTERRUPTED.set()
    with pytest.raises(KeyboardInterrupt):
        loop.fit(config(runs, "interrupted", stage))
    assert not cli.INTERRUPTED.is_set()


def test_the_folder_of_another_run_is_refused(runs):
    with pytest.raises(ConfigError, match="vae holds a run with seed 0, not 1; choose"):
        loop.fit(config(runs, "vae", *VAE_STAGES, seed=1))


def test_a_run_that_fails_at_its_start_leaves_its_folder_to_another_config(runs, tmp_path):
    with pytest.raises(ConfigError, match="there is no checkpoint folder"):
        loop.fit(dataclasses.replace(config(runs, "x", *VAE_STAGES[:1]), output=str(tmp_path), init_from="nowhere"))
    assert not list(tmp_path.iterdir())
    stage = dataclasses.replace(VAE_STAGES[0], data=VideoData(str(tmp_path / "nowhere.csv")))
    for start in (None, str(runs / "start")):
        with pytest.raises(ConfigError, match="there is no manifest"):
            loop.fit(dataclasses.replace(config(runs, "x", stage), output=str(tmp_path), init_from=start))
    loop.fit(dataclasses.replace(config(runs, "x", VAE_STAGES[0]), output=str(tmp_path)))
    with pytest.raises(ConfigError, match=r"a run with stages\.0\.data\.kind ShapesData, not VideoData"):
        loop.fit(dataclasses.replace(config(runs, "x", stage), output=str(tmp_path)))


@nightly
def test_a_run_gets_more_steps_as_if_it_had_had_them_from_the_beginning(runs):
    """The rate does not decay here; what is said where it does is tested with the run's record."""
    speed = dataclasses.replace(SPEED, decay=False)
    stage = Stage("spatial", SpatialReconstruction(), ShapesData(1), ("vae/spatial/decoder",), 4, 1, speed)
    loop.fit(config(runs, "longer", dataclasses.replace(stage, steps=2)))
    longer = loop.fit(config(runs, "longer", stage))
    whole = loop.fit(config(runs, "at once", stage))
    jax.tree.map(np.testing.assert_array_equal, longer.params, whole.params)
    assert "extended from 2 to 4 steps; the learning rate stays 0.003" in (runs / "longer" / "train.log").read_text()


def test_a_run_of_an_earlier_version_is_loaded_but_not_continued(runs):
    shutil.copytree(runs / "vae", runs / "former")
    (runs / "former" / "train_config.json").rename(runs / "former" / "train_config.txt")
    with pytest.raises(ConfigError, match=r"earlier version .*--init-from .*former"):
        loop.fit(config(runs, "former", *VAE_STAGES))
    assert load(runs / "former").config == SHAPES
    start = given_model(config(runs, "after", *VAE_STAGES, start="former"))
    jax.tree.map(np.testing.assert_array_equal, start.params, load(runs / "vae", PARTS).params)


def test_mistakes_that_need_no_model_are_found_before_one_is_loaded(runs, monkeypatch, tmp_path):
    def forbidden(*_):
        raise AssertionError("a model was loaded or made")

    for name in ("given_model", "start_on_disk"):
        monkeypatch.setattr(loop, name, forbidden)
    data = (
        (VideoData("nowhere.csv", 68), "there is no manifest nowhere.csv"),
        (ShapesData(67), r"67 frames are too short: the stage trains on 20 latent frames; give at least 68 frames"),
        (LatentData("nowhere"), "there are no latents in nowhere"),
    )
    for wrong, says in data:
        stage = Stage("base", ProgressiveDiffusion(), wrong, ("stdit3",), 1, 1)
        with pytest.raises(ConfigError, match=says):
            loop.fit(config(tmp_path, "x", stage))
        assert not (tmp_path / "x").exists()
    with pytest.raises(ConfigError, match="LatentData has no pixels"):
        loop.fit(config(tmp_path, "x", dataclasses.replace(VAE_STAGES[0], data=LatentData("nowhere"))))
    with pytest.raises(ConfigError, match="stage base: train names 'stdit', which is no part of the model; parts are"):
        Stage("base", ProgressiveDiffusion(), ShapesData(68), ("stdit",), 1, 1)


def test_a_grown_start_is_a_folder_of_the_run(runs):
    """So that its checkpoints know their frozen parameters."""
    grown = dataclasses.replace(SHAPES, stdit3=dataclasses.replace(SHAPES.stdit3, depth=3, patch_size=(1, 1)))
    frames = 17 * SHAPES.window.slots
    stage = Stage("grown", ProgressiveDiffusion(), ShapesData(frames, samples=2), ("stdit3/blocks",), 2, 1, SPEED)
    given = dataclasses.replace(config(runs, "grown", stage, start="vae"), model=grown)
    trained, start, halfway = (
        loop.fit(given),
        load(runs / "grown" / "start"),
        runs / "grown" / "stages" / "0-grown" / "2",
    )
    assert start.config == grown and load(halfway).config == grown
    for name in ("patch_embed", "final"):  # frozen here
        jax.tree.map(np.testing.assert_array_equal, trained.params["stdit3"][name], start.params["stdit3"][name])
    assert np.abs(first_value(load(halfway)) - first_value(start)).max() > 0


def test_a_loss_that_is_not_finite_ends_the_run(runs):
    broken = dataclasses.replace(SPEED, learning_rate=1e30, warmup_steps=0)
    stage = Stage("spatial", SpatialReconstruction(), ShapesData(1), ("vae/spatial",), 5, 1, broken)
    with pytest.raises(ConfigError, match="not finite at step 2 of stage spatial"):
        loop.fit(config(runs, "broken", stage))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stepz", "1"], "there is no option --stepz; did you mean --model.window.steps or --steps?"),
        (["--lora.rank", "4"], "--lora.rank cannot be given here, because lora is None; set it in the file"),
        (["--optimizer.learning-rate", "nan"], "learning_rate must be a number above 0, not nan"),
        (["--objective.caption-dropout", "7"], "caption_dropout is a share of the captions, from 0 to 1, not 7.0"),
        (["--data.samples", "-3"], "samples of the shapes world must be at least 1, not -3"),
        (["--compile-only", "v4:4x4x8", "--distributed"], "--compile-only trains nothing; leave out --distributed"),
        (["--seed", "18446744073709551616"], "seed must be 0 to 2000000000, not 18446744073709551616"),
        (["--train", "vae"], "stage progressive: ProgressiveDiffusion does not train 'vae'; it trains stdit3, wan, t5"),
        (["--seed", "-1"], "seed must be 0 to 2000000000, not -1"),
        (["--output", ""], "output is empty; name a folder"),
        (
            None,
            "no config given; add --config, a file or a shipped one: "
            + ", ".join(
                sorted(path.stem for path in CONFIGS.glob("[!c]*.py"))
            ),  # none begins with c but the comparisons
        ),
    ],
)
def test_mistakes_of_the_command_line_are_one_line_and_exit_with_2(monkeypatch, capsys, arguments, message):
    given = [] if arguments is None else ["--config", str(CONFIGS / "demo_progressive.py"), *arguments]
    monkeypatch.setattr("sys.argv", ["train", *given])
    with pytest.raises(SystemExit) as caught:
        train.main()
    assert caught.value.code == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_help_needs_no_config(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["train", "--help"])
    with pytest.raises(SystemExit) as caught:
        train.main()
    assert caught.value.code == 0
    assert "--compile-only TOPOLOGY" in capsys.readouterr().out
