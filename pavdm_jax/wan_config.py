"""Wan 2.1's networks, which SkyReels-V2-DF uses, and its schedules, as frozen dataclasses; axes as in `config.py`."""

import math
from dataclasses import dataclass

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
        if min(self.depth, self.hidden_size, self.num_heads) < 1:
            raise ConfigError("depth, hidden_size and num_heads must be at least 1")
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


@dataclass(frozen=True)
class WanVAEConfig:
    """The causal video autoencoder of Wan 2.1: the first frame of a video is a latent frame, and each four after it.

    Each level but the last halves rows and columns, and time where `temporal_downsample` says so.
    """

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
        if len(self.temporal_downsample) != len(self.channel_multipliers) - 1:
            raise ConfigError(
                f"temporal_downsample has {len(self.temporal_downsample)} entries; one is needed between each two of "
                f"the {len(self.channel_multipliers)} channel_multipliers"
            )
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


@dataclass(frozen=True)
class BlockScheduleConfig:
    """SkyReels-V2's own schedules, in which whole blocks of latent frames wait their turn inside the window.

    Without a lag all frames are denoised alike. With one, each block begins `lag` steps after the one before it; a
    window shorter than the video follows them, and holds finished blocks as long as there is room.
    """

    window_size: int = 25  # latent frames that the network sees at once (base_num_frames)
    steps: int = 30  # network calls that each latent frame receives
    lag: int = 0  # steps between the beginnings of two blocks (ar_step); 0 begins all at once
    block_size: int = 1  # latent frames that are denoised alike (causal_block_size)
    given_noise: float = 0.0  # level to which given frames are noised before every step (addnoise_condition / 1000)

    def __post_init__(self) -> None:
        for name in ("window_size", "steps", "block_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.lag < 0:
            raise ConfigError(f"lag must be 0 or more, not {self.lag}")
        if not 0 <= self.given_noise < 1:
            raise ConfigError(f"given_noise is a level from 0 to below 1, not {self.given_noise}; try 0.02")
        if self.window_size % self.block_size:
            raise ConfigError(
                f"window_size {self.window_size} is not divisible by block_size {self.block_size}; use "
                f"{max(1, self.window_size // self.block_size) * self.block_size}"
            )
