#!/usr/bin/env bash
# The long tests, which are too much for every change: thousands of damaged inputs, fifty kills of generation and of training, every mesh; and
# eight large configs compiled for their chips. On one core of an AMD EPYC the tests took 48 minutes (2026-12-01); compiling comes on top. Usage: bash launch/nightly.sh
set -euo pipefail
cd "$(dirname "$0")/.."
export PAVDM_NIGHTLY=1
bash launch/test.sh
bash launch/compile_configs.sh tpu_v4=v4:4x4x8 tpu_v5e=v5e:8x8 tpu_v5p=v5p:4x4x4 gpu_h100x8=h100:8 pa_m=v4:4x4x8 \
  open_sora_distilled=v4:4x4x8 skyreels_progressive=h100:8 skyreels_lora=h100:8
source launch/environment.sh test
export JAX_PLATFORMS=cpu ALLOW_MULTIPLE_LIBTPU_LOAD=1
python -m pytest -m other_chips tests/entry_points/test_config_files.py tests/ahead_of_time
