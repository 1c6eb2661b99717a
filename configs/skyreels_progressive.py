"""The progressive finetune of SkyReels-V2-DF-1.3B on 8 GPUs of 80 GB: 544x960, a window of 25 latent frames.

    bash launch/multi_gpu.sh --config configs/skyreels_progressive.py --data.manifest clips.csv
    pavdm "a cat" --checkpoint runs/skyreels_progressive --seconds 60

The published weights were trained with a level for each latent frame by itself, so they can be sampled progressively as
they are; this narrows the training to the levels of the sliding window, its growth and its end. The context is
noised to 0.02, in training as in sampling.

Hardware: 8 H100; --mesh and --batch-size for others. Measured: the step is compiled for them, without GPUs, and fits
(configs/README.md). Never run: no duration or quality is known.
"""

from pavdm_jax.training.presets import skyreels_finetune

config = skyreels_finetune("runs/skyreels_progressive", batch_size=8, mesh="fsdp=8")
