# Makes the virtual environment .venv (or $VENV) with the package in it, and activates it. Sourced by the other scripts.
# Usage: source launch/environment.sh [extra]     extra: "test" for the tools of the tests
cd "$(dirname "${BASH_SOURCE[0]}")/.."
VENV=${VENV:-.venv}
extra=${1:+[$1]}
if [ ! -f "$VENV/installed$extra" ] || [ pyproject.toml -nt "$VENV/installed$extra" ]; then
  python=${PYTHON:-$(command -v python3.12 || command -v python3.11 || command -v python3)}
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    { echo "error: Python 3.11 or newer is needed; $python is older. Set PYTHON=/path/to/python3.12" >&2; exit 2; }
  "$python" -m venv "$VENV"
  "$VENV/bin/python" -m pip install --quiet --upgrade pip
  "$VENV/bin/python" -m pip install --quiet -e ".$extra"
  touch "$VENV/installed$extra"
fi
PATH="$(cd "$VENV" && pwd)/bin:$PATH"
export PATH
