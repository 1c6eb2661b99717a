"""What is too long for every run of the tests, and is left to `bash launch/nightly.sh`."""

import os

import pytest

IS_NIGHT = bool(os.environ.get("PAVDM_NIGHTLY"))
"""Whether this is the long run; processes that tests start know it, too."""

nightly = pytest.mark.skipif(not IS_NIGHT, reason="for the nightly run: PAVDM_NIGHTLY=1, or bash launch/nightly.sh")


def at_night(*values):
    """Values of a parametrised test that are left to the nightly run; a tuple holds the values of one case."""
    return [pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=nightly) for value in values]
