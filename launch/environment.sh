# Makes the virtual environment .venv of the clone (or $VENV) with the package in it, and puts it first on PATH. Sourced by the other scripts.
# Usage: source launch/environment.sh EXTRA     EXTRA: of pyproject.toml, "test" for the tools of the tests, or "" for none
clone=$(CDPATH= cd -- "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${VENV:-$clone/.venv}
extra=${1:+[$1]}

works() { "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; }

if [ ! -f "$VENV/installed$extra" ] || [ "$clone/pyproject.toml" -nt "$VENV/installed$extra" ]; then
  for python in ${PYTHON:-python3.12 python3.11 python3.13 python3 python}; do works "$python" && break; done
  works "$python" || { echo "error: Python 3.11 to 3.13 with venv is needed and was not found; set PYTHON=/path/to/python3.12" >&2; return 2; }
  "$python" -m venv "$VENV" &&
    "$VENV/bin/python" -m pip install --quiet --upgrade pip &&
    "$VENV/bin/python" -m pip install --quiet -e "$clone$extra" &&
    touch "$VENV/installed$extra" || return
fi
PATH="$(CDPATH= cd -- "$VENV" && pwd)/bin:$PATH"
export PATH
