#!/usr/bin/env bash
# A 1440-frame video (60 s at 24 fps) from a prompt, with the embedded model that takes two network passes a shift, on this machine: writes video.mp4.
# Usage: bash launch/demo.sh ["a prompt" [any option of `pavdm --help`]]
set -euo pipefail
source "$(dirname "$0")/environment.sh" "" # no extra; without the empty word, the prompt would be taken for one
# "On a CPU" in configs/README.md: matrix products in bfloat16 are faster with AMX; with AVX512-BF16 alone and jax 0.10.2 no gain was seen.
if grep -qs amx_bf16 /proc/cpuinfo; then export JAX_DEFAULT_MATMUL_PRECISION=${JAX_DEFAULT_MATMUL_PRECISION:-bfloat16}; fi
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}
prompt=${1:-"a large red circle bounces slowly"}
pavdm "$prompt" --checkpoint demo-distilled --frames 1440 --output video.mp4 "${@:2}"
