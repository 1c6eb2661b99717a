"""Where a run writes what grows, wherever its folder is."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

from pavdm_jax import storage


class Mirror:
    """A local folder for what grows: that of the run itself or, for one in a bucket, a temporary one that `copy` copies there.

    Args:
      target: the folder to be.
      kept: names of files in it with which to go on.

    Attributes:
      folder: where to write.
    """

    def __init__(self, target: Path, kept: Iterable[str]):
        self.target, self.folder, self._copied = target, target, {}
        if not storage.is_remote(target):
            return
        self._temporary = tempfile.TemporaryDirectory(prefix="pavdm-")
        self.folder = Path(self._temporary.name)
        with storage.explained(target):
            for name in storage.names(target) & set(kept):
                (self.folder / name).write_bytes((target / name).read_bytes())

    def copy(self) -> None:
        """Copy what changed since the last time; a log's last line may come with the next copy.

        Raises:
          OSError: it cannot be copied.
        """
        if self.folder == self.target:
            return
        found = storage.stamps(str(path) for path in sorted(self.folder.rglob("*")) if path.is_file())
        for path, stamp in found.items():
            if self._copied.get(path) != stamp:
                storage.upload(Path(path), self.target / Path(path).relative_to(self.folder).as_posix())
                self._copied[path] = stamp

    def close(self) -> None:
        """Copy the rest, and remove the temporary folder."""
        if self.folder != self.target:
            with self._temporary:
                self.copy()
