"""The whole command `pavdm` in this process."""

import sys

import pytest

from pavdm_jax import __main__ as pavdm
from pavdm_jax import make_video


def mistake(capsys, monkeypatch, *arguments):
    """Run `pavdm`, and return its exit code and the only line that it wrote on the error stream."""
    monkeypatch.setattr(sys, "argv", ["pavdm", *map(str, arguments)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        pavdm.main()
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return caught.value.code, lines[0]


def run(*arguments):
    """Run `pavdm` in this process, and return its exit code; mistakes are raised."""
    return make_video.run(make_video.read([str(argument) for argument in arguments]))
