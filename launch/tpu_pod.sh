#!/usr/bin/env bash
# Training on a TPU pod slice: start it on every host of the slice, for instance from your machine with
#   gcloud compute tpus tpu-vm ssh NAME --zone ZONE --worker=all --command "cd pavdm_jax && bash launch/tpu_pod.sh --config configs/tpu_v4.py ..."
# Data, checkpoints and --output lie where all hosts see them: in a bucket (--data.manifest gs://BUCKET/clips.csv --init-from gs://BUCKET/MODEL
# --output gs://BUCKET/run), or on a Filestore share. The hosts' service account needs to read and write objects and storage.buckets.get
# (roles storage.objectAdmin and storage.legacyBucketReader).
# Usage: bash launch/tpu_pod.sh --config FILE [--field.name value ...]
set -euo pipefail
source "$(dirname "$0")/environment.sh" tpu
exec pavdm train --distributed "$@"
