"""The paper's progressive finetune of Open-Sora 1.2 XL/2 on a TPU v4-256: 240p, clips of 119 frames (35 latent frames).

    bash launch/tpu_pod.sh --config configs/tpu_v4.py --data.manifest gs://BUCKET/clips.csv \
        --init-from gs://BUCKET/open-sora-1.2 --output gs://BUCKET/tpu_v4                              (on every host)

Hardware: 128 chips, 4x4x8. Any pod from v4-32 on does with another mesh and batch: --mesh fsdp=16 --batch-size 16.
Measured: the step is compiled for the topology, without chips, and fits (configs/README.md):

    python -m pavdm_jax.train --config configs/tpu_v4.py --compile-only v4:4x4x8

Never run: no duration or quality is known. Learning rate, epsilon, warm-up,
clipping and EMA are the reference's; the batch is a clip a chip.
"""

from pavdm_jax.training.presets import open_sora_finetune

config = open_sora_finetune("runs/tpu_v4", batch_size=128, mesh="data=8,fsdp=16")
