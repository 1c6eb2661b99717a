#!/usr/bin/env bash
# Training on GPU nodes under SLURM, a process a GPU. Told to stop (SIGTERM two minutes before the end) while it trains, it saves; submitted again, it goes on.
# Usage: sbatch --nodes 4 --gpus-per-node 8 launch/slurm.sh --config configs/gpu_h100x8.py --mesh data=4,fsdp=8 --batch-size 128 [...]
#SBATCH --job-name=pavdm
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}" # SLURM runs a copy of this file from elsewhere
source launch/environment.sh cuda
# Some releases of srun give each task one core unless they are told again.
exec srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-8}" --kill-on-bad-exit=1 pavdm train --distributed "$@"
