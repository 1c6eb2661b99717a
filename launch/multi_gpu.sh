#!/usr/bin/env bash
# Training on all GPUs of this host, in one process; goes on where it was interrupted when it is given again.
# Usage: bash launch/multi_gpu.sh --config configs/gpu_h100x8.py [--field.name value ...]
set -euo pipefail
source "$(dirname "$0")/environment.sh" cuda
exec pavdm train "$@"
