"""The paper's progressive finetune of Open-Sora 1.2 XL/2 on a TPU v5p-128: 240p, 119 frames (35 latent frames) a clip.

    bash launch/tpu_pod.sh --config configs/tpu_v5p.py --data.manifest gs://BUCKET/clips.csv \
        --init-from gs://BUCKET/open-sora-1.2 --output gs://BUCKET/tpu_v5p                             (on every host)

Hardware: 64 chips of 95 GB, 4x4x4; two clips a chip.
Measured: the step is compiled for the topology, without chips, and fits (configs/README.md):

    python -m pavdm_jax.train --config configs/tpu_v5p.py --compile-only v5p:4x4x4

Never run: no duration or quality is known. The paper's settings, as in `configs/tpu_v4.py`.
"""

from pavdm_jax.training.presets import open_sora_finetune

config = open_sora_finetune("runs/tpu_v5p", batch_size=128, mesh="data=4,fsdp=16")
