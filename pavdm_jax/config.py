"""Every setting of the project, as frozen dataclasses that check themselves.

Axis legend, used by name in every file (arrays are channels-last, ``[b, t, h, w, c]``):

====  =====================================  ====  =====================================
b     batch                                  d     model width
f     pixel frames                           n     attention heads
t     latent frames (of a window or clip)    e     head width
h w   rows, columns (of pixels or latents)   k     latent frames of a chunk
c     channels                               r     sampling steps of a shift
s     spatial tokens of a latent frame       l     caption tokens
p     prompts along the time axis            i j   shift number, chunk number
====  =====================================  ====  =====================================

*Frame* alone is a pixel frame. A *level* is the noise of a latent frame: 0 clean, 1 pure noise. A *step* is one network
call, a *shift* moves the window by a chunk. The default values are Open-Sora v1.2's and the paper's (PA-VDM "O"
setting).
"""

from dataclasses import dataclass, field
from typing import ClassVar

from pavdm_jax.config_checks import MAX_LAYERS, check_at_least, check_between, check_fit, check_groups, check_positive
from pavdm_jax.errors import ConfigError

# --- models -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class STDiT3Config:
    """The video diffusion transformer (Open-Sora `STDiT3`); the defaults are STDiT3-XL/2."""

    depth: int = 28  # pairs of one spatial and one temporal block
    hidden_size: int = 1152
    num_heads: int = 16
    mlp_ratio: float = 4.0
    patch_size: tuple[int, int] = (2, 2)  # latent rows, columns of a token; a token never spans latent frames
    latent_channels: int = 4
    caption_channels: int = 4096
    max_caption_tokens: int = 300
    base_size: int = 512  # pixels; the position embedding is scaled by sqrt(height * width) / base_size

    def __post_init__(self) -> None:
        check_at_least(0, self, "mlp_ratio", most=1000)
        check_at_least(1, self, "depth", "hidden_size", "num_heads", "mlp_size", "patch_size", "latent_channels")
        check_at_least(1, self, "caption_channels", "max_caption_tokens", "base_size")
        if self.hidden_size % self.num_heads != 0:
            raise ConfigError(f"hidden_size {self.hidden_size} is not divisible by num_heads {self.num_heads}")
        if self.hidden_size % 4 != 0:
            raise ConfigError(
                f"hidden_size {self.hidden_size} must be a multiple of 4 (sines and cosines of rows and columns)"
            )
        if self.head_width % 2 != 0:
            raise ConfigError(f"head width {self.head_width} must be even (rotary pairs)")

    @property
    def head_width(self) -> int:
        """Channels of an attention head, e."""
        return self.hidden_size // self.num_heads

    @property
    def mlp_size(self) -> int:
        """Hidden channels of the feed-forward networks."""
        return int(self.hidden_size * self.mlp_ratio)


@dataclass(frozen=True)
class SpatialVAEConfig:
    """The per-frame autoencoder (diffusers' `AutoencoderKL`, SDXL layout).

    Each level but the last halves rows and columns.
    """

    block_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    num_groups: int = 32
    latent_channels: int = 4
    scaling_factor: float = 0.18215  # the latents of the encoder are multiplied by it

    def __post_init__(self) -> None:
        check_at_least(1, self, "block_channels", "latent_channels")
        check_at_least(1, self, "layers_per_block", most=MAX_LAYERS)
        check_positive(self, "scaling_factor")
        check_groups(self.num_groups, self.block_channels)

    @property
    def downsample(self) -> int:
        """Pixels per latent cell, along rows and along columns."""
        return 2 ** (len(self.block_channels) - 1)


@dataclass(frozen=True)
class TemporalVAEConfig:
    """The temporal autoencoder over the spatial latents (Open-Sora `VAE_Temporal_SD`): causal 3-D convolutions."""

    filters: int = 128
    num_res_blocks: int = 4
    channel_multipliers: tuple[int, ...] = (1, 2, 2, 4)
    temporal_downsample: tuple[bool, ...] = (False, True, True)
    num_groups: int = 32
    latent_channels: int = 4

    def __post_init__(self) -> None:
        check_at_least(1, self, "filters", "channel_multipliers", "latent_channels")
        check_at_least(1, self, "num_res_blocks", most=MAX_LAYERS)
        check_groups(self.num_groups, (self.filters * multiplier for multiplier in self.channel_multipliers))
        check_between(self.temporal_downsample, self.channel_multipliers)

    @property
    def downsample(self) -> int:
        """Pixel frames per latent frame."""
        return 2 ** sum(self.temporal_downsample)


@dataclass(frozen=True)
class VAEConfig:
    """The video autoencoder: spatial, then temporal; clips are coded `micro_frames` at a time, independently.

    A micro clip becomes `micro_latents` latent frames. The default 0 stands for the fewest that hold it: 17 frames ↔ 5
    in Open-Sora's VAE. One more is possible, as in the paper's M setting: 16 frames ↔ 5, where the first latent frame
    codes only padding.
    """

    hands_on_latents: ClassVar[bool] = True  # latents of a clip's end can begin another clip

    spatial: SpatialVAEConfig = field(default_factory=SpatialVAEConfig)
    temporal: TemporalVAEConfig = field(default_factory=TemporalVAEConfig)
    micro_frames: int = 17
    micro_latents: int = 0

    def __post_init__(self) -> None:
        check_at_least(1, self, "micro_frames")
        fewest = -(-self.micro_frames // self.temporal.downsample)
        if self.micro_latents == 0:
            object.__setattr__(self, "micro_latents", fewest)
        if not fewest <= self.micro_latents <= fewest + 1:
            raise ConfigError(
                f"vae.micro_latents {self.micro_latents} does not fit micro clips of {self.micro_frames} frames, "
                f"{self.temporal.downsample} to a latent frame; use {fewest} or {fewest + 1}"
            )

    @property
    def latent_channels(self) -> int:
        """Channels of the latents, c."""
        return self.temporal.latent_channels

    @property
    def downsample(self) -> int:
        """Pixels per latent cell, along rows and along columns."""
        return self.spatial.downsample

    @property
    def time_downsample(self) -> int:
        """Pixel frames per latent frame."""
        return self.temporal.downsample

    @property
    def decoded_together(self) -> int:
        """Latent frames that can only be decoded together: a micro clip."""
        return self.micro_latents

    @property
    def still_frames(self) -> int:
        """Pixel frames for which an image is held when a video begins with it."""
        return self.micro_frames


@dataclass(frozen=True)
class T5Config:
    """The text encoder, T5 v1.1 or umT5; the defaults are T5-XXL."""

    vocab_size: int = 32128
    d_model: int = 4096
    d_kv: int = 64
    d_ff: int = 10240
    num_layers: int = 24
    num_heads: int = 64
    relative_buckets: int = 32
    relative_max_distance: int = 128
    bias_in_every_layer: bool = False  # each layer has a relative bias of its own (umT5), instead of one for all

    def __post_init__(self) -> None:
        check_at_least(1, self, "vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads")
        check_at_least(4, self, "relative_buckets", most=100_000)
        check_at_least(self.relative_buckets // 4 + 1, self, "relative_max_distance", most=100_000)


@dataclass(frozen=True)
class TextConfig:
    """How captions and prompts become token ids: what is appended to them, and how many tokens are kept."""

    cleaning: ClassVar[str] = "web"  # how texts are cleaned first, see `text.captions`
    max_tokens: int = 300
    # Appended to captions in training and to prompts alike (`text.captions.complete`); None appends nothing.
    aesthetic_score: float | None = 6.5  # 4 to 7; as " aesthetic score: 6.5."
    motion_score: float | None = None  # 0 to 20, optical flow; as " motion score: 4.0."
    camera_motion: str | None = None  # such as "pan right"; as " camera motion: pan right."

    def __post_init__(self) -> None:
        for name in ("aesthetic_score", "motion_score"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 100:
                raise ConfigError(f"{name} must be from 0 to 100, not {value}")
        if self.max_tokens <= 1:
            raise ConfigError(f"max_tokens {self.max_tokens} leaves no room for a word")


# --- sampling ---------------------------------------------------------------------------------------------------------

MAX_LATENT_FRAMES, MAX_STEPS = 10_000, 10_000
"""Of a window, and of the sampling of a latent frame: more is a slip of the keyboard."""


@dataclass(frozen=True)
class WindowConfig:
    """The attention window and its noise levels (arXiv 2410.08151, section 3); by default the paper's "O" setting."""

    chunk_size: int = 5  # latent frames that share a level and leave the window together
    noisy_chunks: int = 6  # chunks being denoised, from nearly clean to pure noise
    context_chunks: int = 1  # finished chunks kept at the head of the window
    steps: int = 30  # network calls that each latent frame receives
    context_noise: float = 0.0  # level to which the context is noised, of which the network is told
    guidance_above: float = 0.0  # level above which latent frames are guided; 0 guides all of them
    reuse_below: float | None = None  # level up to which they are predicted once a shift; None: in each of its steps
    partition: int | None = None  # latent frames of a network call, where the window is longer than it (FIFO-Diffusion)
    lag: int | None = None  # steps from a chunk's beginning to the next one's, which waits in the window (SkyReels-V2)

    def __post_init__(self) -> None:
        check_at_least(1, self, "chunk_size", "noisy_chunks", "steps")
        check_at_least(0, self, "context_chunks")
        for name, usual in (("context_noise", 0.02), ("guidance_above", 0.3), ("reuse_below", 0.3)):
            level = getattr(self, name)
            if level is not None and not 0 <= level < 1:
                raise ConfigError(f"{name} is a level from 0 to below 1, not {level}; try {usual}")
        if self.context_noise > 0 and self.context_chunks <= 0 and self.lag is None:
            raise ConfigError(f"context_noise {self.context_noise} needs a context; give context_chunks 1")
        if self.partition is not None:
            half, rest = divmod(self.partition, 2)
            if half < 1 or rest or half % self.chunk_size or self.window_size % half:
                raise ConfigError(
                    f"partition {self.partition} does not divide this window: half of it must be a multiple of the "
                    f"chunk_size {self.chunk_size} and a divisor of the window's {self.window_size} latent frames"
                )
        size, most = self.window_size, MAX_LATENT_FRAMES
        if size > most:
            raise ConfigError(f"a window of {size} latent frames is too long; use at most {most}")
        if self.steps > MAX_STEPS:
            raise ConfigError(f"steps must be at most {MAX_STEPS}, not {self.steps}")
        if self.lag is not None and self.lag < 1:
            raise ConfigError(f"lag must be at least 1 step, not {self.lag}")
        if self.lag is None and self.steps % self.noisy_chunks != 0:
            below = self.steps // self.noisy_chunks * self.noisy_chunks
            near = " or ".join(str(n) for n in (below, below + self.noisy_chunks) if n)
            raise ConfigError(
                f"steps {self.steps} is not divisible by the {self.noisy_chunks} noisy chunks of the window; use {near}"
            )

    @property
    def steps_per_shift(self) -> int:
        """Network calls of a shift, r."""
        return self.steps // self.noisy_chunks if self.lag is None else min(self.lag, self.steps)

    @property
    def slots(self) -> int:
        """Chunks that the window has room for: the context and the noisy ones."""
        return self.context_chunks + self.noisy_chunks

    @property
    def window_size(self) -> int:
        """Latent frames of the window."""
        return self.slots * self.chunk_size

    @property
    def seen_at_once(self) -> int:
        """Latent frames of one network call; they decide the noise shift."""
        return self.window_size if self.partition is None else self.partition


SCHEDULES = {
    "pa-o": WindowConfig(),
    "pa-m": WindowConfig(noisy_chunks=10, steps=50),
    "no-context": WindowConfig(context_chunks=0),
    "no-chunks": WindowConfig(chunk_size=1, noisy_chunks=30, context_chunks=0),
    "fifo": WindowConfig(chunk_size=1, noisy_chunks=30, context_chunks=5, partition=10),
}
"""Named windows: the paper's settings O and M, its two ablations, and FIFO-Diffusion (`diffusion/partitions.py`)."""


@dataclass(frozen=True)
class ClipConfig:
    """Clips of one noise level, each continued from the end of the one before it.

    These are the baselines of the paper (arXiv 2410.08151, section 4).
    """

    frames: int = 51  # pixel frames of a clip, its context included
    context_frames: int = 17  # of these, from the end of the clip before; 1 conditions on one frame, as SVD-XT does
    keep_latents: bool = False  # hand the context on as latents, instead of decoding it and encoding it again
    edit_ratio: float = 0.0  # level below which the context is denoised along with the clip (Open-Sora); 0 keeps it
    steps: int = 30  # network calls of a clip

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= MAX_STEPS:
            raise ConfigError(f"steps must be 1 to {MAX_STEPS}, not {self.steps}")
        if self.frames > 4 * MAX_LATENT_FRAMES:
            raise ConfigError(f"clips of {self.frames} frames are too long; use at most {4 * MAX_LATENT_FRAMES}")
        if not 0 <= self.edit_ratio <= 1:
            raise ConfigError(
                f"edit_ratio must be from 0 (keep the context) to 1 (make it again), not {self.edit_ratio}"
            )
        if not 1 <= self.context_frames < self.frames:
            raise ConfigError(
                f"context_frames must be at least 1 and fewer than the clip's {self.frames} frames, not "
                f"{self.context_frames}"
            )


NOISE_BASE_SIZE = 512
"""In pixels, as in Open-Sora: the levels of one latent frame of this size, squared, are not shifted."""

# --- the whole model --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelConfig:
    """Everything but the weights that is needed to run a model; it is stored as JSON with every checkpoint.

    This is the family of Open-Sora 1.2; `families.AnyModelConfig` are all of them.
    """

    transformer_part: ClassVar[str] = "stdit3"  # the name of the transformer among the parts of a model
    negative_prompt: ClassVar[str | None] = None  # guidance leads away from it, or from the null caption
    clip_frames: ClassVar[int] = 51  # pixel frames of a clip of the baselines

    name: str = "open-sora-1.2"
    stdit3: STDiT3Config = field(default_factory=STDiT3Config)
    vae: VAEConfig = field(default_factory=VAEConfig)
    t5: T5Config = field(default_factory=T5Config)
    text: TextConfig = field(default_factory=TextConfig)
    window: WindowConfig = field(default_factory=WindowConfig)
    height: int = 240  # pixels of a video when the user asks for no size
    width: int = 424
    fps: float = 24.0
    guidance_scale: float = 7.0
    noise_base_size: int = NOISE_BASE_SIZE  # pixels; the noise shift of one frame of this size, squared, is 1

    def __post_init__(self) -> None:
        check_at_least(1, self, "height", "width", "noise_base_size")
        check_fit(self.stdit3, self.transformer_part, self.vae.latent_channels, self.t5, self.text)

    @property
    def transformer(self) -> STDiT3Config:
        """The transformer's config, by the name that it has in every family."""
        return self.stdit3


OPEN_SORA_1_2 = ModelConfig()
"""The published model, Open-Sora 1.2."""

STDIT3_3B = STDiT3Config(hidden_size=1872, num_heads=26)
"""STDiT3-3B/2, the larger published architecture."""


def demo() -> ModelConfig:
    """The architecture of the embedded model: the same networks, at sizes that train and run on a laptop."""
    return ModelConfig(
        name="demo",
        stdit3=STDiT3Config(
            depth=6, hidden_size=192, num_heads=6, caption_channels=128, max_caption_tokens=40, base_size=64
        ),
        vae=VAEConfig(
            spatial=SpatialVAEConfig(
                block_channels=(16, 32, 48, 48), layers_per_block=1, num_groups=8, scaling_factor=1.0
            ),
            temporal=TemporalVAEConfig(filters=16, num_res_blocks=1, channel_multipliers=(1, 2, 2, 2), num_groups=8),
        ),
        t5=T5Config(vocab_size=192, d_model=128, d_kv=32, d_ff=256, num_layers=2, num_heads=4),
        text=TextConfig(max_tokens=40, aesthetic_score=None),
        height=64,
        width=64,
        guidance_scale=3.0,
        noise_base_size=192,
    )


def tiny() -> ModelConfig:
    """The smallest model that has every network, for tests and for trying the code with random weights."""
    return ModelConfig(
        name="tiny",
        stdit3=STDiT3Config(depth=2, hidden_size=32, num_heads=2, caption_channels=16, max_caption_tokens=8),
        vae=VAEConfig(
            spatial=SpatialVAEConfig(block_channels=(4, 8), layers_per_block=1, num_groups=2),
            temporal=TemporalVAEConfig(filters=4, num_res_blocks=1, num_groups=2),
        ),
        t5=T5Config(vocab_size=96, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2),
        text=TextConfig(max_tokens=8, aesthetic_score=None),
        window=WindowConfig(chunk_size=5, noisy_chunks=3, steps=6),
        height=16,
        width=24,
    )
