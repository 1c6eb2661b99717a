"""The paper's progressive finetune of Open-Sora 1.2 XL/2 on one host with 8 H100.

240p, clips of 119 frames (35 latent frames).

    bash launch/multi_gpu.sh --config configs/gpu_h100x8.py --data.manifest clips.csv --optimizer.learning-rate 5e-5

Hardware: 8 GPUs of 80 GB; on several such hosts `launch/slurm.sh`, with --mesh data=HOSTS,fsdp=8 and a larger
--batch-size. Measured: the step is compiled for 8 H100, without any, and takes half of what JAX uses of their memory
(configs/README.md); a batch of 64 fits, too:

    python -m pavdm_jax.train --config configs/gpu_h100x8.py --compile-only h100:8

Never run: no duration or quality is known. The paper's settings, as in `configs/tpu_v4.py`.
"""

from pavdm_jax.training.presets import open_sora_finetune

config = open_sora_finetune("runs/gpu_h100x8", batch_size=32, mesh="fsdp=8")
