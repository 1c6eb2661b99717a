#!/usr/bin/env bash
# Compiles the training step of configs for the chips they are meant for, by those chips' own compilers: it ends with an error where one does not
# fit the memory of a chip. Two at a time: for half of its time, such a compilation keeps one core busy.
# Usage: bash launch/compile_configs.sh NAME=TOPOLOGY...     for instance tpu_v4=v4:4x4x8 gpu_h100x8=h100:8
set -euo pipefail
source "$(dirname "$0")/environment.sh" test
python -m pip install --quiet libtpu==0.0.51 "jax[cuda12]==$(python -c 'import jax; print(jax.__version__)')"
export JAX_PLATFORMS=cpu ALLOW_MULTIPLE_LIBTPU_LOAD=1
printf '%s\n' "$@" | tr = ' ' | xargs -P 2 -L 1 sh -c 'pavdm train --config "$0" --compile-only "$1"'
