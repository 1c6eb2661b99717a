"""Positions of a video on the disk: of an unfinished one, to go on, and of a finished one, to make it again in part.

Of `video.mp4` the latter are in `video.states/`, each named by the number of frames that the video had then, and in
`video.partial.states/` until it is whole. A position holds the window, so its size is that of some seconds of latent
frames, whatever the length of the video.
"""

import hashlib
import re
import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from pavdm_jax.errors import FAULTS, ConfigError, first_line, of_machine
from pavdm_jax.outputs import new_file, partial_path

DIGEST = "digest"

MOVING = ".moving"
"""A file in the folder of a growing video's positions: those of an older video are gone, some may be in their place."""


def _digest(arrays: dict[str, np.ndarray]) -> str:
    """Of all arrays, by which edited files are told."""
    made = hashlib.blake2b(digest_size=16)
    for name, array in sorted(arrays.items()):
        made.update(f"{name} {array.dtype.str} {array.shape}:".encode())
        made.update(np.ascontiguousarray(array).tobytes())
    return made.hexdigest()


def write_arrays(path: Path, **arrays: ArrayLike) -> None:
    """Write arrays, and texts, to a file that is whole or absent.

    Raises:
      ConfigError: it cannot be written.
    """
    with new_file(path) as file:
        values = {name: np.asarray(array) for name, array in arrays.items()}
        np.savez(file, allow_pickle=False, **values, **{DIGEST: np.asarray(_digest(values))})


def read_arrays(path: Path, remedy: str) -> dict[str, np.ndarray]:
    """All arrays of a file; one that is damaged is a `ConfigError` with the remedy."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):
            raise ValueError("it holds more than arrays")
        if str(arrays.pop(DIGEST, None)) != _digest(arrays):
            raise ValueError("it has been changed")
        return arrays
    except OSError as error:
        problem = f"{path} cannot be read ({error.strerror or error})"
        raise of_machine(error, problem if error.errno in FAULTS else f"{problem}; {remedy}") from None
    except (ValueError, KeyError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise ConfigError(f"{path} cannot be read ({first_line(error)}); {remedy}") from None


def states_folder(video: Path) -> Path:
    """Where the positions of a video are kept."""
    return video.with_name(f"{video.stem}.states")


def _growing(video: Path) -> Path:
    """Where they are until the video has its name: an older video of that name keeps its own."""
    return states_folder(partial_path(video))


def _states(folder: Path) -> dict[int, Path]:
    """The positions in a folder, by the frames that the video had."""
    return {int(path.stem): path for path in folder.glob("*.npz") if re.fullmatch("[0-9]{8,}", path.stem)}


def check_states(video: Path) -> None:
    """Fail early where positions cannot be kept.

    Raises:
      ConfigError: something else than a folder is there.
    """
    for folder in (states_folder(video), _growing(video)):
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise ConfigError(f"{folder} is no folder, so that positions cannot be kept there; choose another output")


def _remove(folder: Path) -> None:
    """Remove positions, and the folder if it holds nothing else."""
    for path in (*_states(folder).values(), folder / MOVING):
        path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def begin_states(video: Path) -> None:
    """Remove what an abandoned run has left."""
    _remove(_growing(video))


def remove_states(video: Path) -> None:
    """Remove the positions of a video, and of an older one of that name."""
    _remove(states_folder(video))
    _remove(_growing(video))


def finish_states(video: Path) -> None:
    """Put the positions in the place of an older video's, now that the video has its name."""
    growing, folder = _growing(video), states_folder(video)
    made, moving = _states(growing), growing / MOVING
    if made and not moving.exists():  # else the last run was killed when some, or all, were in their place already
        _remove(folder)
        folder.mkdir(exist_ok=True)
        moving.touch()
    for path in made.values():
        path.replace(folder / path.name)
    _remove(growing)


def keep_state(video: Path, saved: dict[str, np.ndarray], comment: str) -> None:
    """Keep a position, from `stream.one_sample`.

    Of several with the same number of frames the first one is kept: the fewest chunks have entered its window.

    Args:
      video: the file.
      saved: the position.
      comment: of the file; it tells later whether they belong together.
    """
    path = _growing(video) / f"{int(saved['frames_done']):08d}.npz"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        write_arrays(path, **saved | {"comment": np.asarray(comment)})


def inherit_states(video: Path, other: Path, frames: int, comment: str) -> None:
    """Keep the positions of another video, up to a number of frames, as those of one that begins as it does."""
    for number, path in sorted(_states(states_folder(other)).items()):
        if number <= frames:
            keep_state(video, read_arrays(path, "make the video again"), comment)


def find_state(video: Path, frames: int, comment: str) -> dict[str, np.ndarray]:
    """The first position that was kept when the video had at least that many frames.

    Raises:
      ConfigError: there is none, or it cannot be read, or belongs to another video.
    """
    kept = _kept(video)
    later = [number for number in kept if number >= frames]
    if not later:
        raise ConfigError(
            f"the last position in {states_folder(video)} is after {max(kept)} frames; redo the video from an earlier "
            "second"
        )
    return _position(video, kept[min(later)], comment)


def find_state_before(video: Path, frames: int, comment: str) -> dict[str, np.ndarray]:
    """The last position that was kept when the video had at most that many frames.

    Raises:
      ConfigError: see `find_state`.
    """
    kept = _kept(video)
    earlier = [number for number in kept if number <= frames]
    if not earlier:
        raise ConfigError(
            f"no position in {states_folder(video)} is of {frames} frames or fewer, the first is after {min(kept)}; "
            "make the video again"
        )
    return _position(video, kept[max(earlier)], comment)


def _kept(video: Path) -> dict[int, Path]:
    """The positions of a video, by the frames that it had."""
    folder = states_folder(video)
    kept = _states(folder)
    if not kept:
        raise ConfigError(
            f"nothing is kept in {folder}, from which {video.name} could be redone: it was made without end or with "
            "--no-states, or the folder is elsewhere"
        )
    return kept


def _position(video: Path, path: Path, comment: str) -> dict[str, np.ndarray]:
    """A position of a video; `ConfigError` if it is damaged, or another video's."""
    saved = read_arrays(path, "redo the video from another second")
    if str(saved.get("comment")) != comment:
        raise ConfigError(f"{path} belongs to another video than {video}; make the video again to redo it")
    return saved
