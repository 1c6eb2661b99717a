"""The published repositories, downloaded by name and cached by huggingface_hub."""

import re
from pathlib import Path

import huggingface_hub
from huggingface_hub import errors

from pavdm_jax.errors import ConfigError

PUBLISHED = {
    "stdit3": "hpcai-tech/OpenSora-STDiT-v3",
    "vae": "hpcai-tech/OpenSora-VAE-v1.2",
    "t5": "DeepFloyd/t5-v1_1-xxl",
}
"""Open-Sora v1.2's weights: the repository of every part."""

FILES = ["config.json", "*.safetensors", "*.safetensors.index.json", "pytorch_model*", "spiece.model"]
"""Patterns of the files that are downloaded."""


def is_name(text: str) -> bool:
    """Whether a text has the form of a repository's name, OWNER/NAME."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", text) is not None


def download(name: str) -> Path:
    """Download the newest files of a repository, except those in the cache, and return their folder.

    Raises:
      ConfigError: no such repository, no access, no network, or no space.
    """
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=FILES))
    except errors.GatedRepoError:
        raise ConfigError(
            f"{name} wants its licence accepted: do so at huggingface.co/{name}, then run: hf auth login"
        ) from None
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        raise ConfigError(
            f"there is no public repository {name} on huggingface.co, and no folder of that name here"
        ) from None
    except (errors.LocalEntryNotFoundError, errors.HfHubHTTPError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].removeprefix("Got: ")[:200]
        raise ConfigError(
            f"{name} cannot be downloaded ({reason}); check the network, or give a local folder"
        ) from None
