"""The published repositories, downloaded by name and cached by huggingface_hub."""

import re
from pathlib import Path

import huggingface_hub
from huggingface_hub import errors

from pavdm_jax.conversion.sources import IN_DIFFUSERS
from pavdm_jax.errors import ConfigError, first_line
from pavdm_jax.models.model import PARTS

PUBLISHED = {
    "open-sora-1.2": {
        "transformer": "hpcai-tech/OpenSora-STDiT-v3",
        "vae": "hpcai-tech/OpenSora-VAE-v1.2",
        "t5": "DeepFloyd/t5-v1_1-xxl",
    },
    "skyreels-v2-df-1.3b": dict.fromkeys(PARTS, "Skywork/SkyReels-V2-DF-1.3B-540P-Diffusers"),
    "skyreels-v2-df-14b": dict.fromkeys(PARTS, "Skywork/SkyReels-V2-DF-14B-540P-Diffusers"),
    "skyreels-v2-df-14b-720p": dict.fromkeys(PARTS, "Skywork/SkyReels-V2-DF-14B-720P-Diffusers"),
}
"""The published models: the repository of every part; of SkyReels-V2 one has all, in safetensors only."""

COMMITS = {"DeepFloyd/t5-v1_1-xxl": "c9c625d2ec93667ec579ede125fd3811d1f81d37"}
"""What is downloaded where no revision is asked for: the commit that public copies of this repository, whose files are
PyTorch's, name. Those of the other published ones are not known to us; a model folder notes which one it is of."""

FILES = ["config.json", "*.safetensors", "*.safetensors.index.json", "pytorch_model*", "spiece.model"]
"""Patterns of the files that are downloaded of a repository of one part, in the published layouts."""

FOLDERS = {part: [f"{folder}/*"] for part, folder in IN_DIFFUSERS.items()}
FOLDERS["t5"].append("tokenizer/*")
"""Patterns of the files of each part of a repository that has all, as `model_index.json` tells."""


def is_name(text: str) -> bool:
    """Whether a text has the form of a repository's name, OWNER/NAME."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", text) is not None


def is_published(name: str) -> bool:
    """Whether a repository is one of `PUBLISHED`."""
    return any(name in repositories.values() for repositories in PUBLISHED.values())


def download(name: str, part: str, revision: str | None = None) -> Path:
    """Download the files of a part from a repository, except those in the cache, and return their folder.

    Args:
      name: of the repository.
      part: "transformer", "vae" or "t5".
      revision: a commit, tag or branch; None: the one in `COMMITS`, or the newest files.

    Raises:
      ConfigError: no such repository or revision, no access, no network, or no space.
    """
    try:
        others = [pattern for other, patterns in FOLDERS.items() if other != part for pattern in patterns]
        files = huggingface_hub.snapshot_download(
            name,
            revision=revision or COMMITS.get(name),
            allow_patterns=[*FILES, "model_index.json", *FOLDERS[part]],
            ignore_patterns=others,  # the patterns of FILES match what is in folders, too
        )
        return Path(files)
    except errors.GatedRepoError:
        raise ConfigError(
            f"{name} wants its licence accepted: do so at huggingface.co/{name}, then run: hf auth login"
        ) from None
    except errors.RevisionNotFoundError:
        raise ConfigError(f"{name} has no revision {revision}; give a commit, tag or branch of it") from None
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        raise ConfigError(
            f"there is no public repository {name} on huggingface.co, and no folder of that name here"
        ) from None
    except Exception as error:  # a lost connection is of the classes of whatever library the hub's client uses
        reason = first_line(error).removeprefix("Got: ")
        raise ConfigError(
            f"{name} cannot be downloaded ({reason}); check the network, or give a local folder"
        ) from None


def commit_of(folder: Path) -> str | None:
    """The commit of a repository whose files `download` has put there: the cache names folders after it."""
    return folder.name if re.fullmatch("[0-9a-f]{40}", folder.name) else None
