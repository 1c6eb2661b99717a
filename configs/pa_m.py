"""The paper's M setting with Open-Sora 1.2 XL/2 on a TPU v4-256: 176x320, 50 steps, a window of 55 latent frames.

The window has 10 noisy chunks and a context of one, 5 latent frames each; 16 frames are coded as 5 latent ones, so
clips have 176 frames.

    bash launch/tpu_pod.sh --config configs/pa_m.py --data.manifest gs://BUCKET/clips.csv \
        --init-from gs://BUCKET/open-sora-1.2 --output gs://BUCKET/pa_m                                (on every host)
    pavdm "a cat" --checkpoint gs://BUCKET/pa_m --frames 1440

The paper's M model and its VAE are not published. Here the weights are Open-Sora's, whose VAE was trained to code 17
frames at once: of 16 frames' five latent frames the first is padding alone. With `--model.vae.micro-frames 17
--data.frames 187` it codes what it was trained for.

Hardware: 128 chips, 4x4x8. Any pod from v4-32 on does with another mesh and batch: --mesh fsdp=16 --batch-size 16.
Measured: the step is compiled for the topology, without chips, and fits (configs/README.md):

    python -m pavdm_jax.train --config configs/pa_m.py --compile-only v4:4x4x8

Never run: no duration or quality is known. Learning rate, epsilon, warm-up, clipping and EMA as in `configs/tpu_v4.py`.
"""

from dataclasses import replace

from pavdm_jax.config import OPEN_SORA_1_2, SCHEDULES
from pavdm_jax.training.presets import open_sora_finetune

vae = replace(OPEN_SORA_1_2.vae, micro_frames=16, micro_latents=5)
model = replace(OPEN_SORA_1_2, vae=vae, window=SCHEDULES["pa-m"], height=176, width=320)
config = open_sora_finetune("runs/pa_m", batch_size=128, mesh="data=8,fsdp=16", frames=16 * 11, model=model)
