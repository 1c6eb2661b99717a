"""One pass of Open-Sora 1.2 XL/2 a shift, in place of ten: five steps of two passes, guided by 7.

    bash launch/tpu_pod.sh --config configs/open_sora_distilled.py --data.manifest gs://BUCKET/clips.csv \
        --init-from gs://BUCKET/tpu_v4 --output gs://BUCKET/open_sora_distilled                        (on every host)
    pavdm "a cat" --checkpoint gs://BUCKET/open_sora_distilled

The teacher is the model that `configs/tpu_v4.py` makes. A step of training is ten forward passes of it, and one pass of
the student forward and backward: guidance and steps are distilled at once.

Hardware: a pod of 128 v4 (4x4x8), as `configs/tpu_v4.py`; --mesh and --batch-size for others. Measured: the step is
compiled for it, without any (configs/README.md):

    python -m pavdm_jax.train --config configs/open_sora_distilled.py --compile-only v4:4x4x8

Never run: no duration or quality is known.
"""

from dataclasses import replace

from pavdm_jax.config import OPEN_SORA_1_2
from pavdm_jax.training.config import DistilledShift
from pavdm_jax.training.presets import open_sora_finetune

window = OPEN_SORA_1_2.window
objective = DistilledShift(steps=window.steps, guidance_scale=OPEN_SORA_1_2.guidance_scale)
student = replace(OPEN_SORA_1_2, guidance_scale=1.0, window=replace(window, steps=window.noisy_chunks))
config = open_sora_finetune(
    "runs/open_sora_distilled", 128, "data=8,fsdp=16", objective=objective, steps=5000, model=student
)
config = replace(config, init_from="runs/tpu_v4")
