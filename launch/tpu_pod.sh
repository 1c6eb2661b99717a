#!/usr/bin/env bash
# Training on a TPU pod slice: start it on every host of the slice, for instance from your machine with
#   gcloud compute tpus tpu-vm ssh NAME --zone ZONE --worker=all --command "cd pavdm_jax && bash launch/tpu_pod.sh --config configs/tpu_v4.py ..."
# Data, checkpoints and --output lie in a file system that all hosts see: a Filestore share, or a bucket mounted with gcsfuse.
# Usage: bash launch/tpu_pod.sh --config FILE [--field.name value ...]
set -euo pipefail
source "$(dirname "$0")/environment.sh" tpu
exec python -m pavdm_jax.train --distributed "$@"
