"""Training configs that several files in `configs/` share, each with the values for its hardware or system."""

from dataclasses import replace

from pavdm_jax.config import OPEN_SORA_1_2, ModelConfig, demo
from pavdm_jax.data.shapes_world import SIMPLE
from pavdm_jax.diffusion.objectives import DistilledGuidance, DistilledShift, ProgressiveDiffusion, UniformDiffusion
from pavdm_jax.training.config import (
    Data,
    JointReconstruction,
    LoRAConfig,
    Objective,
    OptimizerConfig,
    SampleConfig,
    ShapesData,
    Stage,
    TrainConfig,
    VideoData,
)
from pavdm_jax.wan_config import SKYREELS_V2_DF_1_3B_MODEL

DEMO_WORLD = replace(SIMPLE, shape_counts=(0.2, 0.45, 0.35))
"""Of trainings of the demo's transformer: mostly several shapes, as these are what it learns last."""

DEMO_OPTIMIZER = OptimizerConfig(1e-3, warmup_steps=50, beta2=0.99, epsilon=1e-8, ema_decay=0.99, algorithm="muon")
"""Of trainings of the demo's transformer. Parts of about 40 latent frames were faster on CPUs than of 5 or 280."""

DEMO_LORA_OPTIMIZER = replace(DEMO_OPTIMIZER, warmup_steps=20, accumulate=8, algorithm="adamw")
"""Of trainings of LoRA adapters of the demo."""

DEMO_DECODERS = Stage(
    "decoders",
    JointReconstruction(decoded_frames=4),
    ShapesData(frames=17, seed=21, world=replace(SIMPLE, shape_counts=(0.34, 0.33, 0.33))),
    train=(
        "vae/spatial/decoder",
        "vae/spatial/post_quant_conv",
        "vae/temporal/decoder",
        "vae/temporal/post_quant_conv",
    ),
    steps=2700,
    batch_size=8,
    optimizer=OptimizerConfig(2e-3, warmup_steps=50, beta2=0.99, epsilon=1e-8, ema_decay=0.99),
)
"""Both decoders of the demo's VAE together. Four frames of a clip cost a third of all seventeen, and each clip is of
another scene."""

DEMO_SCENES = Stage(
    "scenes",
    UniformDiffusion(clip_chunks=1, masks=None, logit_normal=False),
    ShapesData(17, samples=10_000, seed=5, world=DEMO_WORLD),
    train=("stdit3", "t5"),
    steps=4400,
    batch_size=32,
    optimizer=replace(DEMO_OPTIMIZER, accumulate=4),
)
"""In which a base learns what captions mean: the shorter the clips, the more scenes are seen in the same time."""


def open_sora_finetune(
    output: str,
    batch_size: int,
    mesh: str,
    remat: str = "attention",
    objective: Objective | None = None,
    steps: int = 10_000,
    frames: int = 119,
    model: ModelConfig = OPEN_SORA_1_2,
    data: Data | None = None,
    lora: LoRAConfig | None = None,
) -> TrainConfig:
    """A finetune of Open-Sora 1.2 XL/2 at 240p, its text layers frozen.

    Learning rate, epsilon, warm-up, clipping and EMA are Open-Sora's; the number of steps is our choice.

    Args:
      output: the run's folder.
      batch_size: clips of a step, over all chips.
      mesh: of the chips, such as "data=8,fsdp=16".
      remat: what the backward pass computes again, see `TrainConfig.remat`.
      objective: None for the paper's progressive levels.
      steps: updates of the parameters.
      frames: pixel frames of a clip; 119 are 35 latent frames.
      model: with the window that is trained, and the size of the videos.
      data: None for the manifest clips.csv.
      lora: train adapters of it instead of the weights.
    """
    objective = ProgressiveDiffusion() if objective is None else objective
    stage = Stage(
        _stage_name(objective),
        objective,
        VideoData("clips.csv", frames=frames) if data is None else data,
        train=("stdit3",),
        freeze=("stdit3/caption_in", "stdit3/caption_out", "stdit3/null_caption"),
        lora=lora,
        steps=steps,
        batch_size=batch_size,
        optimizer=OptimizerConfig(1e-4, warmup_steps=1000, decay=False),
    )
    return TrainConfig(
        model=model,
        init_from="checkpoints/open-sora-1.2",
        output=output,
        stages=(stage,),
        compute_dtype="bfloat16",
        remat=remat,
        mesh=mesh,
    )


def skyreels_finetune(output: str, batch_size: int, mesh: str, lora: LoRAConfig | None = None) -> TrainConfig:
    """A progressive finetune of SkyReels-V2-DF-1.3B at 544x960, on clips of the 97 frames that it was trained on.

    Learning rate and warm-up are our choice; those of the published training are not known.

    Args:
      output: the run's folder.
      batch_size: clips of a step, over all chips.
      mesh: of the chips, such as "fsdp=8".
      lora: train adapters of it instead of the weights.
    """
    stage = Stage(
        "progressive",
        ProgressiveDiffusion(),
        VideoData("clips.csv", frames=97),
        train=("wan",),
        steps=10_000,
        batch_size=batch_size,
        optimizer=OptimizerConfig(2e-5 if lora is None else 1e-4, warmup_steps=1000, decay=False),
        lora=lora,
    )
    return TrainConfig(
        model=SKYREELS_V2_DF_1_3B_MODEL,
        init_from="checkpoints/skyreels-v2-df-1.3b",
        output=output,
        stages=(stage,),
        compute_dtype="bfloat16",
        remat="full",
        mesh=mesh,
        samples=SampleConfig(frames=97),
    )


def demo_system(
    output: str,
    objective: Objective | None = None,
    batch_size: int = 8,
    frames: int = 17 * 8,
    model: ModelConfig | None = None,
) -> TrainConfig:
    """A finetune of the demo base on the shapes world, the same for every system of the paper.

    Args:
      output: the run's folder.
      objective: None for the paper's progressive levels, with many growing windows: while these have no context, the
        prompt alone decides what will be seen.
      batch_size: clips of a step.
      frames: pixel frames of a scene, of which a clip is a part.
      model: with the window that is trained; None for the embedded model's.
    """
    objective = ProgressiveDiffusion(growing=0.4, shrinking=0.1, short=0.0) if objective is None else objective
    stage = Stage(
        _stage_name(objective),
        objective,
        ShapesData(frames=frames, samples=1600, seed=2, world=DEMO_WORLD),
        train=("stdit3", "t5"),
        steps=1900,
        batch_size=batch_size,
        optimizer=replace(DEMO_OPTIMIZER, accumulate=batch_size),
    )
    return TrainConfig(
        model=demo() if model is None else model,
        init_from="runs/demo_base",
        output=output,
        stages=(stage,),
        model_dtype="float16",
        save_every=100,
    )


def demo_compared(
    output: str,
    objective: Objective | None = None,
    batch_size: int = 8,
    model: ModelConfig | None = None,
    init_from: str = "runs/demo_uniform",
) -> TrainConfig:
    """A system of the comparison on the shapes world: `demo_system` as LoRA adapters, small enough to keep with scores.

    All have the same number of steps and the same scenes.

    Args:
      output: the run's folder.
      objective: see `demo_system`.
      batch_size: see `demo_system`.
      model: see `demo_system`.
      init_from: the base, which has never seen this objective.
    """
    config = demo_system(output, objective, batch_size, model=model)
    stage = replace(
        config.stages[0],
        data=ShapesData(frames=17 * 8, samples=600, seed=2, world=DEMO_WORLD),
        train=("stdit3",),
        steps=250,
        optimizer=DEMO_LORA_OPTIMIZER,
        lora=LoRAConfig(rank=16),
    )
    return replace(config, init_from=init_from, stages=(stage,))


def demo_distilled(output: str, objective: Objective, init_from: str, model: ModelConfig, steps: int) -> TrainConfig:
    """A distillation of a model of the demo's architecture on the shapes world, to LoRA adapters: a fifth of its size.

    Half of the scenes have one shape, as prompts may ask for; of a fifth, as the teacher is trained on, students let a
    small shape alone fade away.

    Args:
      output: the run's folder.
      objective: of the distillation.
      init_from: the teacher, from which the student starts.
      model: the student's config, with the guidance scale 1 and its own number of steps.
      steps: updates of the parameters.
    """
    stage = Stage(
        _stage_name(objective),
        objective,
        ShapesData(frames=17 * 8, samples=1600, seed=11, world=SIMPLE),
        train=("stdit3",),
        steps=steps,
        batch_size=4,
        optimizer=replace(DEMO_LORA_OPTIMIZER, learning_rate=7e-4, accumulate=4),
        lora=LoRAConfig(rank=32, alpha=32),
    )
    return TrainConfig(
        model=model, init_from=init_from, output=output, stages=(stage,), model_dtype="float16", save_every=100
    )


def _stage_name(objective: Objective) -> str:
    if isinstance(objective, DistilledGuidance | DistilledShift):
        return "distilled"
    return "progressive" if isinstance(objective, ProgressiveDiffusion) else "finetune"
