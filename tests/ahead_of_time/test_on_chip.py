"""`pavdm benchmark --real` on a CPU, at a small scale: every number is there, and means what its name says."""

import json
import sys

import jax
import pytest
from support.command_line import mistake
from support.nightly import nightly

from pavdm_jax import benchmark
from pavdm_jax.ahead_of_time import on_chip
from pavdm_jax.ahead_of_time.on_chip import scaled
from pavdm_jax.config import tiny
from pavdm_jax.families import PUBLISHED
from pavdm_jax.models.model import abstract_params


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """What the command writes about a family, with these options."""

    def run(family, *options):
        monkeypatch.setattr(on_chip, "MOST_CLIPS", 1)  # each number of clips is compiled
        output = tmp_path / "chip.json"
        arguments = ["--real", "--family", family, "--output", str(output), *options]
        monkeypatch.setattr(sys, "argv", ["benchmark", *arguments])
        with pytest.raises(SystemExit) as end:
            benchmark.main()
        assert end.value.code == 0
        numbers = json.loads(output.read_text())
        assert (numbers["family"], numbers["dtype"]) == (family, "bfloat16")
        return numbers

    return run


def check_generation(made):
    assert made["frames_a_chunk"] in (17, 20)
    assert made["frames_per_second"] == pytest.approx(
        made["frames_a_chunk"] / (made["seconds_a_shift"] + made["decode_seconds_a_chunk"])
    )
    assert made["estimated_seconds_for_1440_frames"] > 72 * made["seconds_a_shift"]


def test_after_its_minutes_no_further_measurement_is_begun(measured, monkeypatch, capsys):
    monkeypatch.setitem(PUBLISHED, "open-sora-1.2", tiny())  # what a scale leaves of the published one compiles longer
    numbers = measured("open-sora-1.2", "--minutes", "0.01")
    assert numbers["size"] == "16x24"
    check_generation(numbers["generation"])
    assert numbers["training"] == "not begun: 0.01 minutes are over"
    assert "generation: seconds_a_shift" in capsys.readouterr().out


@nightly
@pytest.mark.parametrize("family", PUBLISHED)
def test_a_small_scale_is_measured_from_end_to_end(family, measured):
    numbers = measured(family, "--scale", "0.02")
    assert numbers["size"] == ("16x32" if "720p" in family else "16x16")
    check_generation(numbers["generation"])
    assert 0 < numbers["numerics"]["relative_error_of_a_forward"] < 0.1  # bfloat16 rounds, and computes the same
    assert numbers["training"]["steps_per_second"] > 0


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_scale_makes_every_part_smaller_and_1_changes_nothing(name):
    config = PUBLISHED[name]
    assert scaled(config, 1.0) == config
    small = scaled(config, 0.1)
    assert small.transformer.head_width == config.transformer.head_width

    def count(config):
        params = abstract_params(config)
        return {
            part: sum(leaf.size for leaf in jax.tree.leaves(params[part])) for part in (config.transformer_part, "vae")
        }

    whole = count(config)
    assert all(size < whole[part] / 5 for part, size in count(small).items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scale", "0"], "--scale must be from 0.01 to 1, not 0"),
        (["--family", "sora"], "--family sora is not known"),
        (["--output", "numbers.txt"], "numbers.txt"),
    ],
)
def test_mistakes_are_one_line(options, message, monkeypatch, capsys):
    code, line = mistake(capsys, monkeypatch, "benchmark", "--real", *options)
    assert code == 2
    assert message in line
