"""The paper's progressive finetune of Open-Sora 1.2 XL/2 on a TPU v5e-64: 240p, clips of 119 frames (35 latent frames).

    bash launch/tpu_pod.sh --config configs/tpu_v5e.py --data.manifest gs://BUCKET/clips.csv \
        --init-from gs://BUCKET/open-sora-1.2 --output gs://BUCKET/tpu_v5e                             (on every host)

Hardware: 64 chips of 16 GB, 8x8.
Measured: the step is compiled for the topology, without chips, and fits (configs/README.md):

    python -m pavdm_jax.train --config configs/tpu_v5e.py --compile-only v5e:8x8

Never run: no duration or quality is known. The paper's settings, as in `configs/tpu_v4.py`.
"""

from pavdm_jax.training.presets import open_sora_finetune

config = open_sora_finetune("runs/tpu_v5e", batch_size=64, mesh="data=4,fsdp=16", remat="full")
