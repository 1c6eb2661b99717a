"""Settings of a training run: stages, objectives, optimiser, data, checkpoints, samples.

A file in `configs/` defines one `config = TrainConfig(...)`.
"""

import math
import re
from dataclasses import dataclass, field

from pavdm_jax.checkpoints.config_python import read_python
from pavdm_jax.checkpoints.model_folder import check_not_embedded
from pavdm_jax.config import VAEConfig
from pavdm_jax.data.config import Data, LatentData, ShapesData, TfdsData, VideoData
from pavdm_jax.diffusion.masks import Masks, masks_of
from pavdm_jax.diffusion.objectives import (
    DistilledGuidance,
    DistilledShift,
    MixedDiffusion,
    ProgressiveDiffusion,
    UniformDiffusion,
)
from pavdm_jax.distributed.mesh import parse_mesh
from pavdm_jax.errors import ConfigError
from pavdm_jax.families import TRANSFORMER_PARTS, AnyModelConfig
from pavdm_jax.generation.options import METHODS
from pavdm_jax.models.model import PART_NAMES

__all__ = [  # everything that a config file needs, with the settings of objectives and data
    "Data",
    "DistilledGuidance",
    "DistilledShift",
    "JointReconstruction",
    "LatentData",
    "LoRAConfig",
    "Masks",
    "MixedDiffusion",
    "Objective",
    "OptimizerConfig",
    "ProgressiveDiffusion",
    "SampleConfig",
    "ShapesData",
    "SpatialReconstruction",
    "Stage",
    "TemporalReconstruction",
    "TfdsData",
    "TrainConfig",
    "UniformDiffusion",
    "VideoData",
    "masks_of",
    "read_config",
]


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW or Muon with linear warm-up, cosine decay to zero, and clipping of the gradient norm."""

    learning_rate: float = 1e-4  # after the warm-up
    warmup_steps: int = 1000  # over which the rate rises linearly from 0
    decay: bool = True  # cosine decay over the stage; False keeps the rate after the warm-up
    beta2: float = 0.999  # decay of the mean square of the gradient
    epsilon: float = 1e-15  # added to its root; 1e-8 is usual, 1e-15 is Open-Sora's
    weight_decay: float = 0.0  # decoupled from the gradient, times the learning rate
    clip_norm: float = 1.0  # longer gradients are scaled down to this norm
    ema_decay: float = 0.99  # of the exponential moving average, which is what a stage hands on
    # adamw; or muon, which makes the changes of the blocks' matrices orthogonal, with NAdam for all other parameters
    algorithm: str = "adamw"
    accumulate: int = 1  # parts of a batch, one after another: the step of a large batch in the memory of a small one

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError(f"learning_rate must be a number above 0, not {self.learning_rate}")
        if self.warmup_steps < 0:
            raise ConfigError(f"warmup_steps must be 0 or more, not {self.warmup_steps}")
        if self.algorithm not in ("adamw", "muon"):
            raise ConfigError(f"the optimizer's algorithm is adamw or muon, not '{self.algorithm}'")
        if not 0 <= self.beta2 < 1:
            raise ConfigError(f"beta2 must be from 0 to below 1, not {self.beta2}")
        if not 0 < self.epsilon < math.inf:
            raise ConfigError(f"epsilon must be a number above 0, not {self.epsilon}")
        if not 0 <= self.weight_decay < math.inf:
            raise ConfigError(f"weight_decay must be a number from 0 on, not {self.weight_decay}")
        if not self.clip_norm > 0:
            raise ConfigError(f"clip_norm must be above 0, not {self.clip_norm}")
        if self.accumulate < 1:
            raise ConfigError(f"accumulate must be at least 1, not {self.accumulate}")
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"ema_decay must be from 0 to below 1, not {self.ema_decay}")


@dataclass(frozen=True)
class LoRAConfig:
    """Low-rank adapters (LoRA) instead of the weights, which are all frozen.

    They are added to the `layers` below the prefixes of the stage's `train`.
    """

    rank: int = 16
    alpha: float = 16.0  # the change of a weight is alpha / rank times the product of its two factors
    layers: tuple[str, ...] = ("qkv", "attention_out", "cross_query", "cross_out", "mlp_in", "mlp_out")
    # STDiT3's; Wan's are query, key, value, attention_out, cross_query, cross_out, mlp_in, mlp_out (skyreels_lora.py).
    save_merged: bool = False  # also write the whole model with the adapters in it, to `output/model`

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"the rank of LoRA adapters must be at least 1, not {self.rank}")
        if not math.isfinite(self.alpha) or self.alpha == 0:
            raise ConfigError(f"the alpha of LoRA adapters must be a number other than 0, not {self.alpha}")
        if not self.layers:
            raise ConfigError("lora.layers names no layers, so that nothing is trained; name one, such as qkv")


@dataclass(frozen=True)
class SpatialReconstruction:
    """The spatial VAE on single frames: absolute and squared error of pixels, and a small KL divergence."""

    kl_weight: float = 1e-6  # of the KL divergence from a standard normal, beside the error

    def __post_init__(self) -> None:
        _check_kl_weight(self.kl_weight)


@dataclass(frozen=True)
class TemporalReconstruction:
    """The temporal VAE on latents of the frozen spatial encoder, with errors relative to their standard deviation.

    At the end of the stage, the normalisation of the latents is measured.
    """

    kl_weight: float = 1e-6  # of the KL divergence from a standard normal, beside the error

    def __post_init__(self) -> None:
        _check_kl_weight(self.kl_weight)


@dataclass(frozen=True)
class JointReconstruction:
    """Micro clips through both parts of the VAE, compared in pixels.

    With decoders alone in the stage's `train`, latents do not change; with "vae/temporal", the normalisation of the
    latents is measured again at the end of the stage.
    """

    kl_weight: float = 1e-6  # of the temporal posterior
    # random frames of a clip that are decoded to pixels and compared; None: all of them
    decoded_frames: int | None = None

    def __post_init__(self) -> None:
        if self.decoded_frames is not None and self.decoded_frames < 1:
            raise ConfigError(f"decoded_frames must be at least 1, or None for all frames, not {self.decoded_frames}")
        _check_kl_weight(self.kl_weight)


def _check_kl_weight(weight: float) -> None:
    if not 0 <= weight < math.inf:
        raise ConfigError(f"kl_weight must be a number from 0 on, not {weight}")


VAE_OBJECTIVES = (SpatialReconstruction, TemporalReconstruction, JointReconstruction)
"""Those of the VAE; the others are of the transformer."""

Objective = (
    SpatialReconstruction
    | TemporalReconstruction
    | JointReconstruction
    | UniformDiffusion
    | ProgressiveDiffusion
    | MixedDiffusion
    | DistilledGuidance
    | DistilledShift
)


@dataclass(frozen=True)
class Stage:
    """A part of a training run with one objective; the next stage starts from its averaged weights."""

    name: str  # in the folder of checkpoints and in the log
    objective: Objective
    data: Data
    train: tuple[str, ...]  # prefixes of the parameter paths that are trained; all others are frozen
    steps: int  # updates of the parameters
    batch_size: int  # samples of a step, over all devices and parts
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    freeze: tuple[str, ...] = ()  # prefixes below those of `train` that are frozen all the same
    lora: LoRAConfig | None = None

    def __post_init__(self) -> None:
        parts = self.optimizer.accumulate
        if self.batch_size % parts != 0:
            raise ConfigError(
                f"stage {self.name}: batch_size {self.batch_size} cannot be accumulated in {parts} parts; make it "
                f"a multiple of {parts}"
            )
        if not re.fullmatch(r"[\w .-]+", self.name):
            raise ConfigError(
                f"the stage name {self.name!r} is part of a folder's name; use letters, digits, blanks, and _ . - only"
            )
        if self.steps < 1:
            raise ConfigError(f"stage {self.name}: steps must be at least 1, not {self.steps}")
        if self.batch_size < 1:
            raise ConfigError(f"stage {self.name}: batch_size must be at least 1, not {self.batch_size}")
        for field_name, prefixes in (("train", self.train), ("freeze", self.freeze)):
            for prefix in prefixes:
                if prefix.split("/")[0] not in PART_NAMES:
                    raise ConfigError(
                        f"stage {self.name}: {field_name} names '{prefix}', which is no part of the model; parts are "
                        f"{', '.join(PART_NAMES)} and what is below them"
                    )
        if not self.train:
            raise ConfigError(f"stage {self.name}: train names no parameters; '{PART_NAMES[0]}' trains the transformer")
        match self.objective:
            case SpatialReconstruction():
                possible = ("vae/spatial",)
            case TemporalReconstruction():
                possible = ("vae/temporal",)
            case JointReconstruction():
                possible = ("vae",)
            case _:
                possible = (*TRANSFORMER_PARTS, "t5")
        idle = [
            prefix
            for prefix in self.train
            if not any(f"{prefix}/".startswith(f"{part}/") or f"{part}/".startswith(f"{prefix}/") for part in possible)
        ]
        if idle:
            raise ConfigError(
                f"stage {self.name}: {type(self.objective).__name__} does not train '{idle[0]}'; it trains "
                f"{', '.join(possible)}"
            )
        if isinstance(self.objective, DistilledGuidance | DistilledShift):
            others = [prefix for prefix in self.train if prefix.split("/")[0] not in TRANSFORMER_PARTS]
            if others:
                raise ConfigError(f"stage {self.name}: distillation trains the transformer only, not {others[0]}")
            if self.data.image_share:
                raise ConfigError(f"stage {self.name}: distillation is of windows; let image_share be 0")


MAX_SEED = 2 * 10**9
"""Seeds have 31 bits, and each stage takes another one."""


@dataclass(frozen=True)
class SampleConfig:
    """Sample videos of the averaged weights during a diffusion stage, in `samples/` and in TensorBoard.

    They are made in the precision of the training, `compute_dtype`.
    """

    every: int = 0  # steps from one to the next; 0 makes none
    prompts: tuple[str, ...] = ("a red circle moves left",)  # a video each
    frames: int = 34  # pixel frames of each
    seed: int = 0  # of every video
    method: str = "progressive"  # by which they are extended; for the baselines' configs replacement, noisy-replacement

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"samples.method '{self.method}' is not known; use {' or '.join(METHODS)}")
        if self.every < 0:
            raise ConfigError(f"samples.every must be 0 or more, not {self.every}")
        if self.frames < 1:
            raise ConfigError(f"samples.frames must be at least 1, not {self.frames}")
        if not 0 <= self.seed <= MAX_SEED:
            raise ConfigError(f"samples.seed must be 0 to {MAX_SEED}, not {self.seed}")


@dataclass(frozen=True)
class TrainConfig:
    """One run: `python -m pavdm_jax.train --config FILE`."""

    model: AnyModelConfig
    stages: tuple[Stage, ...]
    output: str = "runs/train"  # folder of checkpoints, log and the finished model; or gs://BUCKET/NAME
    init_from: str | None = None  # a model or run to start from, or gs://BUCKET/NAME; None: random weights
    # a spiece.model for random weights; None: it is made from the captions of the stages' data
    tokenizer: str | None = None
    seed: int = 0  # of random weights, batches, noise and levels
    model_dtype: str = "float32"  # in which the finished model is stored; float16 halves its size
    # of matrix products in diffusion stages, float32 or bfloat16 (for accelerators); VAEs, and all trained weights, are
    # float32 in any case
    compute_dtype: str = "float32"
    remat: str = "none"  # "attention" or "full" keep less of a transformer's pass and compute it again (see `STDiT3`)
    save_every: int = 500  # steps between checkpoints
    keep: int = 2  # newest checkpoints of a stage that are kept
    keep_best: int = 1  # and those of the lowest smoothed loss
    log_every: int = 20  # steps between lines of the log
    samples: SampleConfig = field(default_factory=SampleConfig)
    mesh: str = "auto"  # "auto": all devices; "single"; or such as "data=4,fsdp=16" (configs/README.md)

    def __post_init__(self) -> None:
        if self.model.window.lag is not None:
            raise ConfigError(
                f"model.window.lag {self.model.window.lag} is of sampling only; train a window without it, and give "
                "--schedule asynchronous for a video"
            )
        if self.model.window.partition is not None:
            raise ConfigError(
                f"model.window.partition {self.model.window.partition} is of sampling only; train a window without it, "
                "and give --partition for a video"
            )
        if self.mesh not in ("auto", "single"):
            parse_mesh(self.mesh)
        if not self.output:
            raise ConfigError("output is empty; name a folder")
        check_not_embedded(self.output)
        if not 0 <= self.seed <= MAX_SEED:
            raise ConfigError(f"seed must be 0 to {MAX_SEED}, not {self.seed}")
        if self.tokenizer is not None and self.init_from is not None:
            raise ConfigError(
                f"tokenizer {self.tokenizer} is for random weights; the model of init_from {self.init_from} "
                "brings its own"
            )
        if not self.stages:
            raise ConfigError("a training run needs at least one stage")
        if self.save_every < 1:
            raise ConfigError(f"save_every must be at least 1, not {self.save_every}")
        if self.model_dtype not in ("float32", "float16"):
            raise ConfigError(f"model_dtype must be float32 or float16, not {self.model_dtype}")
        if self.compute_dtype not in ("float32", "bfloat16"):
            raise ConfigError(f"compute_dtype must be float32 or bfloat16, not {self.compute_dtype}")
        if self.remat not in ("none", "attention", "full"):
            raise ConfigError(f"remat must be none, attention or full, not {self.remat}")
        if self.log_every < 1:
            raise ConfigError(f"log_every must be at least 1, not {self.log_every}")
        if self.keep < 1:
            raise ConfigError(f"keep must be at least 1, not {self.keep}")
        if self.keep_best < 0:
            raise ConfigError(f"keep_best must be 0 or more, not {self.keep_best}")
        names = [stage.name for stage in self.stages]
        if len(set(names)) != len(names):
            raise ConfigError(f"two stages have the same name: {', '.join(names)}")
        for stage in self.stages:
            if isinstance(stage.objective, VAE_OBJECTIVES) and not isinstance(self.model.vae, VAEConfig):
                raise ConfigError(
                    f"stage {stage.name}: the VAE of {self.model.name} is used as published, and cannot be trained "
                    "here; use a diffusion objective"
                )
            self._check_distillation(stage)
        if any(stage.lora for stage in self.stages) and (len(self.stages) != 1 or self.init_from is None):
            raise ConfigError("LoRA adapters belong to a model on disk; give them a run of one stage, with init_from")

    def _check_distillation(self, stage: Stage) -> None:
        """The student's sampling, `model`, must be what the objective teaches."""
        if not isinstance(stage.objective, DistilledGuidance | DistilledShift):
            return
        if self.init_from is None and stage is self.stages[0]:
            raise ConfigError(f"stage {stage.name}: distillation needs a teacher; give init_from, a model or run")
        if self.model.guidance_scale != 1:
            raise ConfigError(
                f"stage {stage.name}: the student needs no guidance; let model.guidance_scale be 1, not "
                f"{self.model.guidance_scale:g} (the teacher's is objective.guidance_scale)"
            )
        if self.model.negative_prompt is not None and stage.objective.guidance_scale != 1:
            raise ConfigError(
                f"stage {stage.name}: {self.model.name} is guided by a negative prompt, and distillation only knows "
                "guidance by the caption alone: its student would not be its like; distil a model of the other family"
            )
        if isinstance(stage.objective, DistilledShift) and getattr(self.model, "solver", "euler") != "euler":
            raise ConfigError(f"stage {stage.name}: the steps of a shift are Euler's; let model.solver be euler")
        if isinstance(stage.objective, DistilledShift) and stage.objective.steps % self.model.window.steps:
            raise ConfigError(
                f"stage {stage.name}: the teacher's steps {stage.objective.steps} are no multiple of the student's, "
                f"model.window.steps {self.model.window.steps}"
            )


def read_config(path: str) -> TrainConfig:
    """The `config` of a Python file.

    Raises:
      ConfigError: see `read_python`.
    """
    return read_python(path, "config", TrainConfig)
