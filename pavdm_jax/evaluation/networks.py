"""What a network must offer to be used in a metric, and what is asked of networks that this project does not ship.

A network has a name, under which its outputs are kept and its scores are reported; no other network goes by that name.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pavdm_jax.errors import ConfigError, first_line
from pavdm_jax.evaluation.extras import import_extra

FRECHET_FRAMES = 16
"""Frames of a clip that the networks of Fréchet distances see."""


class Network(Protocol):
    """What a metric needs of a network."""

    name: str

    def features(self, clip: np.ndarray, fps: float) -> np.ndarray:
        """What it says of a two-second clip, uint8 RGB `[f, h, w, 3]`; numbers, of any shape."""
        ...


def frechet_stride(frames: int) -> int:
    """Frames from one that the network sees to the next: 3 in a clip of 48, so that 16 span its two seconds."""
    return max(1, frames // FRECHET_FRAMES)


def sixteen_frames(clip: np.ndarray) -> np.ndarray:
    """The frames of a clip that the networks of Fréchet distances see, spread over it."""
    if len(clip) < FRECHET_FRAMES:
        raise ConfigError(
            f"a clip of {len(clip)} frames is too short for a Fréchet distance; it needs {FRECHET_FRAMES}"
        )
    return clip[:: frechet_stride(len(clip))][:FRECHET_FRAMES]


@dataclass
class TorchNetwork:
    """A network in PyTorch.

    Attributes:
      name: see `Network`.
      select: the frames that it sees, of a clip and its frames a second.
      run: from frames, float32 0..255 `[f, 3, h, w]` on the device, to its output, a tensor.
      device: "cuda" or "cpu".
    """

    name: str
    select: Callable[[np.ndarray, float], np.ndarray]
    run: Callable[[Any], Any]
    device: str

    def features(self, clip: np.ndarray, fps: float) -> np.ndarray:
        """See `Network`."""
        torch = import_extra("torch", "torch")
        frames = np.ascontiguousarray(self.select(clip, fps).transpose(0, 3, 1, 2))
        with torch.no_grad():
            return self.run(torch.from_numpy(frames).to(self.device, torch.float32)).float().cpu().numpy()


def default_device() -> str:
    """The GPU if PyTorch has one."""
    return "cuda" if import_extra("torch", "torch").cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Loader:
    """How a network is loaded onto a device, and what to install for it."""

    load: Callable[[str], Network]
    remedy: str


def load_networks(names: Iterable[str], loaders: Mapping[str, Loader]) -> list[Network]:
    """The named networks with the weights that their authors publish.

    Raises:
      ConfigError: there is no such network, or its code or its weights are missing; in one line with the remedy.
    """
    found = []
    for name in names:
        if name not in loaders:
            raise ConfigError(f"there is no network {name}; there are {', '.join(loaders)}")
        try:
            import_extra("torch", "torch")
            found.append(loaders[name].load(default_device()))
        except ConfigError:  # of the libraries, with a remedy of its own
            raise
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"the network {name} cannot be loaded ({first_line(error)}); {loaders[name].remedy} and let it "
                "download its weights, or put its outputs into a file beside each video"
            ) from None
    return found
