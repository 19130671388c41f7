"""The tree of exceptions.

::

    GibbonError
    ├── RequestError              the request was wrong: nothing is computed, exit code 2
    │   ├── SpecError             a suite, recipe or option is invalid
    │   │   └── MissingLibraryError  a required library is not installed
    │   ├── UnknownNameError      no model, attack, dataset or suite has that name
    │   ├── DatasetError          a dataset is damaged, empty or not available
    │   ├── WeightsError          a weights file is damaged, of another shape, or a pickle
    │   ├── ModelError            a model breaks its declaration
    │   ├── DeviceError           the device is not available
    │   ├── RunFolderError        the output folder is in use, foreign or not writable
    │   └── RecordError           a stored record can't be read back
    ├── IncompleteError           shards of a run are missing or not finished, exit code 3
    ├── FlagError                 serious flags that nobody accepted, exit code 1
    └── CellError                 one cell failed: it is recorded as failed, the others go on
        ├── AttackError           an attack broke its contract
        ├── OutputError           a model returned something that can't be scored
        ├── ProcessEndedError     the process of a cell exited, crashed or exceeded a limit
        └── MemoryShortageError   memory ran out, and no smaller batch may be tried

The message of a `RequestError` states the fault and its place, the expected and the given value,
and the nearest valid name.  A `CellError`, like any other exception raised inside a cell, is caught
at one place only: the boundary of the cell.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from itertools import islice
from typing import Any

# Names that other libraries give to what is called otherwise here, without punctuation.
SYNONYMS = {
    **dict.fromkeys(("eps", "epsilons", "epsmax"), "epsilon"),
    **dict.fromkeys(("alpha", "epsstep", "epsiter", "lr", "relstepsize", "stepsizes"), "stepsize"),
    **dict.fromkeys(("iters", "iterations", "numsteps", "nsteps", "maxiter", "niter"), "steps"),
    **dict.fromkeys(("nbiter", "numiter", "niters", "maxiterations", "nbsteps"), "steps"),
    **dict.fromkeys(("nrestarts", "numrestarts", "randomrestarts", "nbrestarts"), "restarts"),
    **dict.fromkeys(("nqueries", "maxqueries", "numqueries", "budget"), "queries"),
    **dict.fromkeys(("randstart", "rs", "randominit", "randinit"), "randomstart"),
    **dict.fromkeys(("checkpoint", "ckpt", "statedict"), "weights"),
    **dict.fromkeys(("data", "datapath"), "dataset"),
    **dict.fromkeys(("aa", "autoattackstandard"), "autoattack"),
    **dict.fromkeys(("ifgsm", "basiciterativemethod"), "bim"),
    **dict.fromkeys(("carliniwagner", "cwl2", "candw"), "cw"),
    "params": "arguments",
    "kwargs": "arguments",
    "randomseed": "seed",
}

LONGEST, MOST = 200, 20_000  # characters and names among which the nearest name is looked for


TOKENS = (
    "discrete inputs, such as token ids, are not supported: attack the embeddings. Give the "
    "embeddings as inputs, with their bounds, and the network after the embedding as the model: "
    "inputs = network.embedding(ids).detach(), bounds=(inputs.min().item(), inputs.max().item())"
)


class GibbonError(Exception):
    """Base class of all exceptions that Gibbon raises."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the finished message, whatever arguments the class takes."""
        return _restored, (type(self), self.args), vars(self)


def _restored(kind: type[GibbonError], args: tuple[Any, ...]) -> GibbonError:
    return kind.__new__(kind, *args)


class RequestError(GibbonError):
    """The request was wrong; the command line ends with exit code 2."""


class SpecError(RequestError):
    """A suite, a recipe or an option is invalid."""

    def __init__(self, message: str, *, where: str = "") -> None:
        super().__init__(f"{where}: {message}" if where else message)


class MissingLibraryError(SpecError):
    """A required library is not installed, or can't be imported."""


class UnknownNameError(RequestError):
    """A registry has no such name; the message suggests the nearest one.

    >>> print(UnknownNameError("attack", "fgms", known=["fgsm", "pgd"]))
    unknown attack 'fgms'; did you mean 'fgsm'? Known: fgsm, pgd
    """

    def __init__(
        self, kind: str, name: str, *, known: Iterable[str], where: str = "", note: str = ""
    ) -> None:
        names = sorted(known)
        message = f"unknown {kind} {name!r}{suggest(name, names)} Known: {', '.join(names)}{note}"
        super().__init__(f"{where}: {message}" if where else message)


class DatasetError(RequestError):
    """A dataset is damaged, empty or not available."""


class WeightsError(RequestError):
    """A weights file is damaged, of another shape, or of a kind that is not loaded."""


class ModelError(RequestError):
    """A model breaks its declaration."""


class DeviceError(RequestError):
    """The requested device is not available."""


class RunFolderError(RequestError):
    """The output folder is in use, belongs to another suite, or can't be written."""


class RecordError(RequestError):
    """A stored record can't be read back."""


class IncompleteError(GibbonError):
    """Shards of a run are missing or not finished; the command line ends with exit code 3."""


class FlagError(GibbonError):
    """Serious flags that nobody accepted: the numbers must not be used.

    Args:
        message: the flags, each with its advice.
        flags: these flags, as `gibbon.records.flags.Flag`.
        results: the complete results of `evaluate`; None if a baseline was refused.
    """

    def __init__(self, message: str, *, flags: Iterable[Any] = (), results: Any = None) -> None:
        super().__init__(message)
        self.flags = tuple(flags)
        self.results = results


class CellError(GibbonError):
    """A cell failed: it is recorded as failed, and the other cells continue."""


class AttackError(CellError):
    """An attack broke its contract."""


class OutputError(CellError):
    """A model returned something that can't be scored, such as NaN."""


class ProcessEndedError(CellError):
    """The process of a cell exited, crashed or exceeded a limit.

    Args:
        message: how it ended.
        doing: what it was doing; empty if it is the cell itself.

    Attributes:
        advanced: the work that it reported as done.
    """

    def __init__(self, message: str, doing: str = "") -> None:
        super().__init__(message)
        self.doing, self.advanced = doing, 0


class MemoryShortageError(CellError):
    """Memory ran out, and no smaller batch may be tried."""


def suggest(name: str, known: Iterable[str]) -> str:
    """Returns ``"; did you mean 'x'?"`` with the name nearest to ``name``, or ``"."``.

    >>> suggest("maxuot", ["maxout", "rbf"])
    "; did you mean 'maxout'?"
    >>> suggest("zebra", ["maxout", "rbf"])
    '.'
    """
    if len(name) > LONGEST:
        return "."
    candidates = list(islice((each for each in known if len(each) <= LONGEST), MOST))
    plain = {_plain(each): each for each in reversed(candidates)}
    meant = plain.get(_plain(name)) or plain.get(SYNONYMS.get(_plain(name), ""))
    near = [meant] if meant else []
    if not meant and not name.startswith("--"):
        near = difflib.get_close_matches(name, candidates, n=1, cutoff=0.5)
    if not near:  # such as "MaxOut2", and options, whose hyphens are no likeness
        lowered = difflib.get_close_matches(_plain(name), list(plain), n=1, cutoff=0.5)
        near = [plain[each] for each in lowered]
    return f"; did you mean {near[0]!r}?" if near else "."


def _plain(name: str) -> str:
    return "".join(each for each in name.lower() if each.isalnum())
