"""Settings of a training run: stages, objectives, optimiser, data. A file in `configs/` defines one `config = TrainConfig(...)`."""

from dataclasses import dataclass, field

from pavdm_jax.config import ModelConfig, require
from pavdm_jax.data_config import LatentData, ShapesData, TfdsData, VideoData


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with linear warm-up, cosine decay to zero, and gradient clipping."""

    learning_rate: float = 1e-4
    warmup_steps: int = 1000
    decay: bool = True  # cosine decay over the stage; False keeps the rate after the warm-up
    beta2: float = 0.999
    epsilon: float = 1e-15
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    ema_decay: float = 0.99  # of the exponential moving average, which is what a stage hands on


Data = ShapesData | VideoData | TfdsData | LatentData


@dataclass(frozen=True)
class SpatialReconstruction:
    """The spatial VAE on single frames: absolute error in pixels, and a little KL divergence."""

    kl_weight: float = 1e-6


@dataclass(frozen=True)
class TemporalReconstruction:
    """The temporal VAE on latents of the frozen spatial encoder, relative to their spread; then the normalisation is measured."""

    kl_weight: float = 1e-6


@dataclass(frozen=True)
class JointReconstruction:
    """Both decoders on pixels of whole micro clips, with both encoders frozen."""


@dataclass(frozen=True)
class UniformDiffusion:
    """One noise level a clip, some frames kept clean by mask strategies (Open-Sora's pretraining; REFERENCE section 8)."""

    clip_chunks: int = 7  # chunks of a training clip
    mask_strategies: bool = True
    caption_dropout: float = 0.1
    logit_normal: bool = True


@dataclass(frozen=True)
class ProgressiveDiffusion:
    """Levels that rise along the window (the paper's method; REFERENCE section 8)."""

    variable_fraction: float = 0.5  # share of windows that grow or shrink; 0 trains full windows only
    level_shift: float = 0.4  # standard deviation of the shift of all levels, in grid steps
    caption_dropout: float = 0.1


Objective = (
    SpatialReconstruction | TemporalReconstruction | JointReconstruction | UniformDiffusion | ProgressiveDiffusion
)


@dataclass(frozen=True)
class Stage:
    """A stretch of training with one objective; its averaged weights are where the next stage starts."""

    name: str
    objective: Objective
    data: Data
    train: tuple[str, ...]  # prefixes of the parameter paths that are trained; all others are frozen
    steps: int
    batch_size: int
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        require(self.steps >= 1, f"stage {self.name}: steps must be at least 1, not {self.steps}")
        require(self.batch_size >= 1, f"stage {self.name}: batch_size must be at least 1, not {self.batch_size}")
        require(
            bool(self.train), f"stage {self.name}: train names no parameters; 'stdit3' trains the whole transformer"
        )


@dataclass(frozen=True)
class TrainConfig:
    """One run: `python -m pavdm_jax.train --config FILE`."""

    model: ModelConfig
    stages: tuple[Stage, ...]
    output: str = "runs/train"  # folder of checkpoints, log and the finished model
    init_from: str | None = None  # a model or run folder to start from; None starts from random weights
    seed: int = 0
    model_dtype: str = "float32"  # in which the finished model is stored; float16 halves its size
    save_every: int = 500  # steps between checkpoints
    log_every: int = 20  # steps between lines of the log

    def __post_init__(self) -> None:
        require(bool(self.stages), "a training run needs at least one stage")
        require(self.save_every >= 1, f"save_every must be at least 1, not {self.save_every}")
        require(
            self.model_dtype in ("float32", "float16"),
            f"model_dtype must be float32 or float16, not {self.model_dtype}",
        )
        require(self.log_every >= 1, f"log_every must be at least 1, not {self.log_every}")
