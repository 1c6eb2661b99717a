#!/usr/bin/env bash
# The linter, the types and the tests, in a virtual environment of the project. Usage: bash launch/test.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh test
ruff check .
ruff format --check .
pyright --pythonpath "$(command -v python)"
# A process for each core, up to four: most tests compile programs, which keeps one core busy. The tests of a file share what is costly to make.
# Those of other chips' compilers need flags of their own, also where these are installed: .ci/run and nightly.sh run them by themselves.
python -m pytest -m "not other_chips" --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder "$@"
