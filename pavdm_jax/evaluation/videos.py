"""Which videos are scored: files and folders of them, of this project or of any other."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pavdm_jax import storage
from pavdm_jax.errors import ConfigError
from pavdm_jax.outputs import UNFINISHED

SUFFIXES = (".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".webm")


@dataclass(frozen=True)
class VideoFile:
    """A file, and the system that made it: videos in one folder are of one system, which has the folder's name."""

    path: Path
    system: str


def find_videos(named: Sequence[str]) -> list[VideoFile]:
    """The videos of files and folders, with those in folders within them, in the order of their names.

    A GIF in a folder is left out where the video that it is a preview of lies beside it (`--gif`).
    Folders of the same name in different places are told apart by as much of their path as it takes.

    Raises:
      ConfigError: nothing was named, it does not exist, or there is no video in it.
    """
    if not named:
        raise ConfigError("no videos were given; name files, or folders with videos in them")
    paths: dict[Path, None] = {}
    for name in named:
        path = storage.local_path(name, "the videos")
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
            found = [file for file in found if not file.stem.endswith(UNFINISHED) and not file.name.startswith(".")]
            whole = {file.with_suffix("") for file in found if file.suffix.lower() != ".gif"}
            found = [file for file in found if file.suffix.lower() != ".gif" or file.with_suffix("") not in whole]
            if not found:
                raise ConfigError(f"there are no videos in the folder {path}; looked for {', '.join(SUFFIXES)}")
            paths |= dict.fromkeys(found)
        elif path.is_file():
            paths[path] = None
        else:
            raise ConfigError(f"{path} does not exist; check the name")
    return [VideoFile(path, system) for path, system in zip(paths, _system_names(list(paths)), strict=True)]


def _system_names(paths: list[Path]) -> list[str]:
    folders = [path.absolute().parent for path in paths]
    names = {folder: folder.name for folder in folders}
    depth = 1
    while len(set(names.values())) < len(names):
        depth += 1
        names = {folder: "/".join(folder.parts[-depth:]) for folder in names}
    return [names[folder] for folder in folders]
