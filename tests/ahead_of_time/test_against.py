"""`pavdm benchmark --against` without the reference: its mistakes, and what is told of given implementations."""

import importlib.util

import jax.numpy as jnp
import numpy as np
import pytest
from support.command_line import mistake

from pavdm_jax.ahead_of_time import against, reference
from pavdm_jax.ahead_of_time.against import AgainstConfig, Case, time_case
from pavdm_jax.errors import ConfigError


@pytest.fixture
def checkout(tmp_path):
    """A folder that looks like a checkout from outside."""
    file = tmp_path / "opensora/models/stdit/stdit3.py"
    file.parent.mkdir(parents=True)
    file.write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--against", "torch"], "--against torch is no checkout of Open-Sora v1.2"),
        (["--against", "x", "--runs", "4"], "--runs must be at least 5, not 4"),
        (["--against", "x", "--output", "numbers.txt"], "numbers.txt"),
        (["--against", "x", "--run", "9"], "did you mean --runs?"),
    ],
)
def test_mistakes_are_one_line(options, message, monkeypatch, capsys):
    code, line = mistake(capsys, monkeypatch, "benchmark", *options)
    assert code == 2
    assert message in line


def test_packages_that_the_reference_needs_are_named_where_they_are_missing(checkout, monkeypatch, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("torch", "timm") else found(name))
    monkeypatch.setattr(reference, "NEEDED", ("torch", "timm", "numpy"))
    code, line = mistake(capsys, monkeypatch, "benchmark", "--against", str(checkout))
    assert code == 2
    assert line.strip().endswith("--against needs packages that are not installed: pip install torch timm")


class Tensor:
    def __init__(self, array):
        self.numpy = lambda: array


HERE = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 2, 2)
"""[b, t, h, w, c]; PyTorch's order is [b, c, t, h, w]."""

THERE = Tensor(HERE.transpose(0, 4, 1, 2, 3))


def rows_of(theirs, **options):
    case = Case("a case", lambda: jnp.asarray(HERE), theirs)
    return {row["implementation"]: row for row in time_case(case, AgainstConfig("a checkout", **options))}


def test_every_implementation_has_its_times_and_their_ratio_to_ours(monkeypatch):
    monkeypatch.setattr(against, "PAUSE", 0.0)
    near = Tensor(THERE.numpy() + np.float32(0.0023))
    rows = rows_of({"eager": lambda: near, "torch.compile": lambda: THERE})
    assert list(rows) == ["ours", "eager", "torch.compile"]
    assert rows["ours"]["over_ours"] == 1.0
    assert rows["eager"]["over_ours"] == pytest.approx(rows["eager"]["minimum"] / rows["ours"]["minimum"])
    assert [rows[name]["difference"] for name in ("eager", "torch.compile")] == pytest.approx([1e-4, 0.0], rel=1e-2)
    assert all(row["minimum"] <= row["median"] for row in rows.values())
    assert list(rows_of({"eager": lambda: THERE, "torch.compile": lambda: THERE}, no_compile=True)) == ["ours", "eager"]


def test_an_implementation_that_fails_is_a_row_that_says_so():
    def fails():
        raise RuntimeError("no compiler\nand more")

    rows = rows_of({"torch.compile": fails})
    assert rows["torch.compile"]["failed"] == "failed: no compiler"


def test_another_result_is_no_comparison():
    with pytest.raises(ConfigError, match="a case gives another result there"):
        rows_of({"eager": lambda: Tensor(THERE.numpy() + 1)})
