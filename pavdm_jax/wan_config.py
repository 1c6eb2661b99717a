"""The family of Wan 2.1, to which SkyReels-V2-DF belongs: its networks, schedules and models, as in `config.py`."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

from pavdm_jax.config import T5Config, TextConfig, WindowConfig
from pavdm_jax.config_checks import MAX_LAYERS, check_at_least, check_between, check_fit, check_positive
from pavdm_jax.errors import ConfigError


@dataclass(frozen=True)
class WanConfig:
    """Wan 2.1's video diffusion transformer; the defaults are SkyReels-V2-DF-1.3B."""

    depth: int = 30
    hidden_size: int = 1536
    num_heads: int = 12
    mlp_size: int = 8960
    patch_size: tuple[int, int] = (2, 2)  # latent rows, columns of a token; a token never spans latent frames
    latent_channels: int = 16
    caption_channels: int = 4096
    max_caption_tokens: int = 512  # captions are padded to it, and the padding is attended to
    sinusoid_width: int = 256  # of the timestep's sinusoids
    embeds_fps: bool = True  # tells 16 frames per second from all other frame rates

    def __post_init__(self) -> None:
        check_at_least(1, self, "depth", "hidden_size", "num_heads", "mlp_size", "patch_size", "latent_channels")
        check_at_least(1, self, "caption_channels", "max_caption_tokens")
        if self.hidden_size % (2 * self.num_heads) != 0:
            raise ConfigError(
                f"hidden_size {self.hidden_size} is not divisible by num_heads {self.num_heads} into even heads"
            )
        if self.head_width < 6:
            raise ConfigError(f"head width {self.head_width} must be at least 6 (a rotary pair for each axis)")
        if self.sinusoid_width % 2 != 0:
            raise ConfigError(f"sinusoid_width {self.sinusoid_width} must be even (cosines and sines)")

    @property
    def head_width(self) -> int:
        """Channels of an attention head, e."""
        return self.hidden_size // self.num_heads


SKYREELS_V2_DF_1_3B = WanConfig()
SKYREELS_V2_DF_14B = WanConfig(depth=40, hidden_size=5120, num_heads=40, mlp_size=13_824, embeds_fps=False)
"""The transformers of the published SkyReels-V2-DF models."""


ENDLESS_LATENTS = 2**40
"""Latent frames of more than four thousand years."""


@dataclass(frozen=True)
class WanVAEConfig:
    """The causal video autoencoder of Wan 2.1: the first frame of a video is a latent frame, and each four after it.

    Each level but the last halves rows and columns, and time where `temporal_downsample` says so.
    """

    hands_on_latents: ClassVar[bool] = False  # the first latent frame of a clip is a single frame, the others are not

    base_channels: int = 96
    channel_multipliers: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2  # of a level of the encoder; a level of the decoder has one more
    temporal_downsample: tuple[bool, ...] = (False, True, True)
    latent_mean: tuple[float, ...] = (
        *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
        *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
    )
    latent_deviation: tuple[float, ...] = (  # latents leave the encoder as (latents - mean) / deviation, per channel
        *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
        *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
    )

    def __post_init__(self) -> None:
        check_at_least(1, self, "base_channels", "channel_multipliers")
        check_at_least(1, self, "num_res_blocks", most=MAX_LAYERS)
        check_positive(self, "latent_deviation")
        if not all(map(math.isfinite, self.latent_mean)):
            raise ConfigError(f"latent_mean must be finite, not {self.latent_mean}")
        check_between(self.temporal_downsample, self.channel_multipliers)
        if len(self.latent_mean) != len(self.latent_deviation):
            raise ConfigError(
                f"latent_mean has {len(self.latent_mean)} channels and latent_deviation {len(self.latent_deviation)}"
            )

    @property
    def latent_channels(self) -> int:
        return len(self.latent_mean)

    @property
    def downsample(self) -> int:
        """Pixels per latent cell, along rows and along columns."""
        return 2 ** (len(self.channel_multipliers) - 1)

    @property
    def time_downsample(self) -> int:
        """Pixel frames per latent frame, but for the first one, which is one pixel frame."""
        return 2 ** sum(self.temporal_downsample)

    @property
    def micro_latents(self) -> int:
        """As of Open-Sora's VAE, whose micro clips are coded independently: here a video is one, without end."""
        return ENDLESS_LATENTS

    @property
    def micro_frames(self) -> int:
        """The pixel frames of `micro_latents`."""
        return self.time_downsample * (ENDLESS_LATENTS - 1) + 1

    @property
    def decoded_together(self) -> int:
        """Latent frames that can only be decoded together."""
        return 1

    @property
    def still_frames(self) -> int:
        """Pixel frames for which an image is held when a video begins with it; as many as SkyReels-V2 continues."""
        return 17

    @property
    def decoder_reach(self) -> int:
        """The latent frames before a latent frame on which its pixel frames depend: 38 at the published sizes.

        Each convolution of three frames reaches back by two, counted in latent frames at the rate of its level.
        """
        level = 4 * (self.num_res_blocks + 1)
        reach, rate = 2.0 + 8.0, 1  # the first convolution, and the middle
        for doubled in reversed(self.temporal_downsample):
            reach += (level + 2 * doubled) / rate
            rate *= 1 + doubled
        return math.ceil(reach + (level + 2) / rate)  # the last level, and the last convolution


# --- the whole model --------------------------------------------------------------------------------------------------


UMT5_XXL = T5Config(vocab_size=256_384, bias_in_every_layer=True)
"""The text encoder of Wan 2.1 and SkyReels-V2."""


@dataclass(frozen=True)
class WanTextConfig(TextConfig):
    """How prompts become token ids: cleaned lightly, without scores."""

    cleaning: ClassVar[str] = "light"
    max_tokens: int = 512
    aesthetic_score: float | None = None


NEGATIVE_PROMPT = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，"
    "丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，"
    "静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"
)
"""The published one, from which guidance leads away unless a request has its own."""

SOLVERS = ("unipc", "euler")
"""Values of `WanModelConfig.solver`."""


@dataclass(frozen=True)
class WanModelConfig:
    """A model of Wan 2.1's family; the defaults are SkyReels-V2-DF-1.3B. `families.AnyModelConfig` are all families.

    The window holds as many latent frames as the published model saw at once in training: 25 of 97 frames.
    """

    transformer_part: ClassVar[str] = "wan"

    name: str = "skyreels-v2-df-1.3b"
    wan: WanConfig = field(default_factory=WanConfig)
    vae: WanVAEConfig = field(default_factory=WanVAEConfig)
    t5: T5Config = UMT5_XXL
    text: WanTextConfig = field(default_factory=WanTextConfig)
    window: WindowConfig = field(default_factory=lambda: WindowConfig(noisy_chunks=4, steps=32, context_noise=0.02))
    height: int = 544  # pixels of a video when the user asks for no size
    width: int = 960
    clip_frames: int = 97  # pixel frames that the model saw at once in training, and of a clip of the baselines
    fps: float = 24.0
    guidance_scale: float = 6.0
    noise_shift: float = 8.0  # of the levels, whatever the size; 8 is published for text, 5 for images
    solver: str = "unipc"  # of progressive sampling: "unipc", as published, or "euler"
    negative_prompt: str = NEGATIVE_PROMPT

    def __post_init__(self) -> None:
        check_at_least(1, self, "height", "width", "clip_frames")
        check_fit(self.wan, self.transformer_part, self.vae.latent_channels, self.t5, self.text)
        if not 0 < self.noise_shift <= MAX_NOISE_SHIFT:
            raise ConfigError(f"noise_shift must be above 0 and at most {MAX_NOISE_SHIFT}, not {self.noise_shift}")
        if self.solver not in SOLVERS:
            raise ConfigError(f"solver '{self.solver}' is not known; use {' or '.join(SOLVERS)}")

    @property
    def transformer(self) -> WanConfig:
        """The transformer's config, by the name that it has in every family."""
        return self.wan


MAX_NOISE_SHIFT = 100

SKYREELS_V2_DF_1_3B_MODEL = WanModelConfig()
SKYREELS_V2_DF_14B_MODEL = WanModelConfig("skyreels-v2-df-14b", SKYREELS_V2_DF_14B)
SKYREELS_V2_DF_14B_720P_MODEL = WanModelConfig(
    "skyreels-v2-df-14b-720p",
    SKYREELS_V2_DF_14B,
    window=WindowConfig(noisy_chunks=5, steps=30, context_noise=0.02),  # 30 latent frames, of 31 in training
    height=720,
    width=1280,
    clip_frames=121,
)
"""The published models."""


def tiny_wan() -> WanModelConfig:
    """The smallest model of this family that has every network, for tests and for trying the code."""
    return WanModelConfig(
        name="tiny-wan",
        wan=WanConfig(
            depth=2,
            hidden_size=32,
            num_heads=2,
            mlp_size=48,
            caption_channels=16,
            max_caption_tokens=8,
            sinusoid_width=16,
            latent_channels=4,
        ),
        vae=WanVAEConfig(
            base_channels=4,
            num_res_blocks=1,
            channel_multipliers=(1, 2, 2),
            temporal_downsample=(True, True),
            latent_mean=(0.1, -0.2, 0.0, 0.3),
            latent_deviation=(1.5, 0.8, 1.0, 1.2),
        ),
        t5=T5Config(vocab_size=96, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, bias_in_every_layer=True),
        text=WanTextConfig(max_tokens=8),
        window=WindowConfig(chunk_size=5, noisy_chunks=3, steps=6, context_noise=0.02),
        height=16,
        width=24,
        negative_prompt="a blurry picture",
    )
