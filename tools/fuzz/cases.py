"""Cases: an entry of the corpus with some mutations, and the finding of a target that reads it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal

from tools.fuzz.mutated_files import mutated_file

CORPUS = Path("tests/fuzz/corpus")

Special = Literal["folder", "pipe", "loop", "device"]
Files = Mapping[str, bytes | Special]  # by path in the folder of a case

WHOLE = 0.05  # share of mutations that exchange whole files


@dataclass(frozen=True)
class Case:
    """A mutant: an entry of a target's corpus, and a number for each mutation."""

    entry: str
    mutations: tuple[int, ...]


@dataclass(frozen=True)
class Corpus:
    """The corpus of one target.

    Args:
        entries: files of each entry, by its name.
        mutable: suffixes of the files that are mutated.
    """

    entries: Mapping[str, Mapping[str, bytes]]
    mutable: tuple[str, ...]

    @classmethod
    def read(cls, folder: Path, mutable: tuple[str, ...]) -> Corpus:
        """Returns the corpus in a folder, each of whose folders is an entry."""
        entries = sorted(each for each in folder.iterdir() if each.is_dir())
        return cls({each.name: files_in(each) for each in entries}, mutable)

    def files(self, case: Case) -> Files:
        """Returns the files of a case.

        >>> corpus = Corpus({"one": {"s.toml": b"a = 1"}}, (".toml",))
        >>> corpus.files(Case("one", ())) == corpus.entries["one"]
        True
        """
        files: dict[str, bytes | Special] = dict(self.entries[case.entry])
        spare = {
            f"{entry}/{path}": content
            for entry, held in self.entries.items()
            for path, content in held.items()
        }
        for seed in case.mutations:
            self._mutate(files, Random(seed), spare)  # noqa: S311  reproducible
        return files

    def _mutate(
        self, files: dict[str, bytes | Special], random: Random, spare: Mapping[str, bytes]
    ) -> None:
        paths = sorted(path for path in files if path.endswith(self.mutable))
        if not paths:
            return
        path = random.choice(paths)
        content = files[path]
        if random.random() < WHOLE:
            _exchange(files, path, random)
        elif isinstance(content, bytes):
            files[path] = mutated_file(path, content, random, spare=spare)


def _exchange(files: dict[str, bytes | Special], path: str, random: Random) -> None:
    specials: tuple[Special, ...] = ("folder", "pipe", "loop", "device")
    match random.randrange(5):
        case 0:
            del files[path]
        case 1:
            files[path] = random.choice(specials)
        case 2:
            files[path] = b""
        case _:
            files[path] = files[random.choice(sorted(files))]


def files_in(folder: Path) -> dict[str, bytes]:
    """Returns the regular files in a folder, by their paths in it."""
    return {
        str(each.relative_to(folder)): each.read_bytes()
        for each in sorted(folder.rglob("*"))
        if each.is_file()
    }


def write_files(files: Files, folder: Path) -> None:
    """Makes a folder of these files in place of what is there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path, content in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            place.write_bytes(content)
        else:
            _MAKERS[content](place)


_MAKERS: dict[Special, Callable[[Path], None]] = {
    "folder": Path.mkdir,
    "pipe": os.mkfifo,
    "loop": lambda place: place.symlink_to(place.name),
    "device": lambda place: place.symlink_to("/dev/zero"),
}


def copied(folder: Path, target: Path) -> None:
    """Copies the folder of a case, its pipes and links included."""

    def copy(source: str, place: str) -> None:
        if Path(source).is_fifo():
            os.mkfifo(place)
        else:
            shutil.copy2(source, place, follow_symlinks=False)

    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target, symlinks=True, copy_function=copy)
