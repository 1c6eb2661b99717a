#!/usr/bin/env bash
# The tests and the linter, in a virtual environment of the project. Usage: bash launch/test.sh [pytest arguments]
set -euo pipefail
source "$(dirname "$0")/environment.sh" test
ruff check . && ruff format --check .
python -m pytest "$@"
