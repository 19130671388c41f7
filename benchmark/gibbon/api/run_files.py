"""Files of a run that results are reported from: a folder, or the contents of a temporary one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from gibbon.core.files import files_of_this_process


@dataclass(frozen=True)
class RunFiles:
    """Files of a run.

    Args:
        folder: the run's folder, if it was given by the caller; else None.
        contents: the files of a temporary folder by their relative path.
    """

    folder: Path | None = None
    contents: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, folder: Path, *, temporary: bool) -> RunFiles:
        """Returns the files of a folder; those of a temporary one are read into memory."""
        if not temporary:
            return cls(folder.resolve())
        files = sorted(each for each in folder.rglob("*") if each.is_file())
        return cls(None, {str(each.relative_to(folder)): each.read_bytes() for each in files})

    @contextmanager
    def opened(self) -> Iterator[Path]:
        """Yields a folder with these files: the run's own, or one that lasts for the block."""
        if self.folder is not None and self.folder.is_dir():
            yield self.folder
            return
        with files_of_this_process(), TemporaryDirectory(prefix="gibbon-") as name:
            folder = Path(name)
            for place, content in self.contents.items():
                (folder / place).parent.mkdir(parents=True, exist_ok=True)
                (folder / place).write_bytes(content)
            yield folder


NO_FILES = RunFiles()
