"""Registries of models, attacks, datasets and trainers, built-in and from installed packages.

A `Registry` maps a name to an `Entry`: a one-line summary and a function that loads the object.
Objects are loaded late, so that names can be listed and checked without importing torch.

Other packages register objects through an entry-point group, such as ``gibbon.attacks``.  An entry
point refers to the object itself, whose docstring gives the summary; to an `Entry`; or to a mapping
of names to either, which registers all of them under the mapping's names::

    [project.entry-points."gibbon.models"]
    cnn = "my_package.model:cnn"
    my-zoo = "my_package.catalogue:MODELS"
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, distributions, entry_points
from pathlib import Path
from types import FrameType
from typing import Any, Generic, TypeVar

from gibbon.core.endings import ends_the_process
from gibbon.core.errors import RequestError, UnknownNameError
from gibbon.core.plain_text import message_of, printable, shortened, shown

T = TypeVar("T")
PACKAGE = "gibbon-bench"
IMPORT_SECONDS = 60.0  # that the import of another package may take
USABLE = re.compile(r"[^\W_][\w.+-]{0,99}")  # names that a plug-in may register
_OURS = "gibbon"
_FOLDER = Path(__file__).parents[1]
# Texts that no registered name has: paths and references, which name no plug-in either.
NO_NAME = re.compile(r"[:/\\]|\.(py|pt|pth|pt2|ckpt|onnx|safetensors|torchscript|npz|npy|csv)$")


@dataclass(frozen=True)
class Entry(Generic[T]):
    """A registered object.

    Args:
        name: its name.
        summary: one line about it.
        load: imports and returns the object.
        origin: name of the package that registered it.
        details: returns a longer text, such as a model card, for ``list --long``.
        package: import name of another package that it needs; empty if none.
        broken: whether loading it raises, because its package can't be imported or another
            package has registered the same name.
    """

    name: str
    summary: str
    load: Callable[[], T]
    origin: str = "gibbon"
    details: Callable[[], str] = str
    package: str = ""
    broken: bool = False

    @property
    def installed(self) -> bool:
        """Whether the package that it needs is installed; nothing is imported to find out."""
        with suppress(Exception):  # of a package that is in pieces
            return not self.package or importlib.util.find_spec(self.package) is not None
        return False


class Registry(Generic[T]):
    """Objects of one kind by name.

    Of other packages, only those are imported that a name may refer to: the entry point of this
    name, or if there is none, those that may be mappings with it.  A package that can't be imported
    is listed as such, and otherwise passed over.

    >>> colours: Registry[int] = Registry("colour", group="example.colours")
    >>> colours.register(Entry("red", "a warm one", lambda: 0xFF0000))
    >>> colours.load("red")
    16711680
    >>> "red" in colours
    True
    >>> colours.load("rad")
    Traceback (most recent call last):
    gibbon.core.errors.UnknownNameError: unknown colour 'rad'; did you mean 'red'? Known: red
    """

    def __init__(self, kind: str, *, group: str) -> None:
        self.kind = kind
        self.group = group
        self._entries: dict[str, Entry[T]] = {}
        self._found: dict[str, list[Entry[T]]] = {}  # those of imported entry points
        self._waiting: list[EntryPoint] | None = None  # entry points that were not imported yet

    def register(self, entry: Entry[T]) -> None:
        """Adds an entry.  Raises `RequestError` if its name is taken."""
        taken = self._entries.get(entry.name)
        if taken is not None:
            raise RequestError(_twice(self.kind, [taken, entry]))
        self._entries[entry.name] = entry

    def __contains__(self, name: object) -> bool:
        """Returns whether an entry has that name."""
        return isinstance(name, str) and bool(self._named(name))

    def names(self) -> list[str]:
        """Returns all names, in order of registration, plug-ins last."""
        return [each.name for each in self.entries()]

    def near_names(self) -> list[str]:
        """Returns the names that are known without importing another package."""
        self._import(lambda point: _origin(point) == PACKAGE)
        points = [each.name for each in self._waiting or ()]
        return list(dict.fromkeys([*self._entries, *sorted(self._found), *sorted(points)]))

    def entries(self) -> list[Entry[T]]:
        """Returns all entries, in order of registration, plug-ins last.

        An entry of a package that can't be imported, or whose name several packages register,
        says so in its summary, and raises when it is loaded.
        """
        self._import(lambda _: True)
        names = dict.fromkeys([*self._entries, *sorted(self._found)])
        return [self._resolved(name, self._all_of(name)) for name in names]

    def get(self, name: str, *, where: str = "") -> Entry[T]:
        """Returns the entry of that name.  Raises `UnknownNameError` with the nearest name."""
        found = self._named(name)
        if not found:
            known, broken = self.names(), [each for each in self.entries() if each.broken]
            raise UnknownNameError(self.kind, name, known=known, where=where, note=_said(broken))
        return self._resolved(name, found)

    def load(self, name: str, *, where: str = "") -> T:
        """Returns the object of that name, importing it now.  Raises `RequestError`."""
        entry = self.get(name, where=where)
        with their_code(f"{self.kind} {name!r} of package {entry.origin} can't be imported"):
            return entry.load()

    def _all_of(self, name: str) -> list[Entry[T]]:
        own = [self._entries[name]] if name in self._entries else []
        return [*own, *sorted(self._found.get(name, ()), key=lambda each: each.origin != PACKAGE)]

    def _named(self, name: str) -> list[Entry[T]]:
        """Returns the entries of a name, importing as few packages as possible."""
        self._import(lambda point: point.name == name)
        if not self._all_of(name) and not NO_NAME.search(name):
            self._import(lambda point: _origin(point) == PACKAGE)
            if not self._all_of(name):
                self._import(lambda _: True)
        return self._all_of(name)

    def _resolved(self, name: str, found: list[Entry[T]]) -> Entry[T]:
        whole = [each for each in found if not each.broken] or found
        if len(whole) == 1:
            return whole[0]
        error = RequestError(_twice(self.kind, whole))
        packages = ", ".join(sorted({each.origin for each in whole}))
        return _broken(name, f"(can't be used: {error})", origin=packages, error=error)

    def _import(self, wanted: Callable[[EntryPoint], bool]) -> None:
        """Imports the wanted entry points of those that were not imported yet."""
        if self._waiting is None:
            self._waiting = _points(self.group)
        chosen = [each for each in self._waiting if wanted(each)]
        self._waiting = [each for each in self._waiting if each not in chosen]
        for point in chosen:
            for entry in self._plugin_entries(point):
                self._found.setdefault(entry.name, []).append(entry)

    def _plugin_entries(self, point: EntryPoint) -> list[Entry[T]]:
        origin = _origin(point)
        problem = f"{self.kind} {point.name!r} of package {origin} can't be imported"
        unchanged = nullcontext() if origin == PACKAGE else restoring_imports()
        try:
            with _interruptions() as pressed, their_code(problem), unchanged:
                try:
                    with _time_limit():
                        loaded: Any = point.load()
                        named = loaded if isinstance(loaded, Mapping) else {point.name: loaded}
                        return [_entry(name, each, origin=origin) for name, each in named.items()]
                except (KeyboardInterrupt, GeneratorExit) as error:
                    if pressed or (pressed is None and ends_the_process(error)):
                        raise
                    raise RuntimeError(f"it raised {type(error).__name__}") from error
        except RequestError as error:  # raised once this name is loaded
            cause = error.__cause__ or error
            text = f"(can't be imported: {type(cause).__name__}: {message_of(cause)})"
            return [_broken(point.name, text, origin=origin, error=error)]


@contextmanager
def their_code(problem: str, *, kind: type[RequestError] = RequestError) -> Iterator[None]:
    """Turns exceptions and exits of third-party code into a `RequestError`, for a ``with`` block.

    Its message holds the problem, the exception, and the file and line, unless these are ours, as
    for a value of the wrong type that their code returned.  ``kind`` is the class of the error.
    """
    try:
        yield
    except RequestError:
        raise
    except BaseException as error:
        if ends_the_process(error):
            raise
        ours = raised_within(error, _FOLDER)
        if isinstance(error, GeneratorExit) and ours:
            raise  # a generator of ours is closed
        if type(error).__module__.partition(".")[0] == _OURS and not isinstance(error, Exception):
            raise  # a signal to this process
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f" ({frame.filename}, line {frame.lineno})"
        raised = f"{type(error).__name__}: {shortened(message_of(error))}"
        if isinstance(error, SystemExit):
            raised = f"it ended the program, with exit code {shown(error.code)}"
        raise kind(f"{problem}: {raised}{'' if ours else place}") from error


def raised_within(error: BaseException, *folders: Path) -> bool:
    """Returns whether an exception was raised at a line of a file in one of these folders."""
    file = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    return any(file.is_relative_to(folder) for folder in folders)


@contextmanager
def _interruptions() -> Iterator[list[int] | None]:
    """Notes presses of Ctrl-C, for a ``with`` block; None if they are not known."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield None
        return
    pressed: list[int] = []

    def press(number: int, frame: FrameType | None) -> None:
        pressed.append(number)
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, press)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def _time_limit() -> Iterator[None]:
    """Raises TimeoutError in a ``with`` block that takes too long, again and again.

    Nothing is limited outside of the main thread, or if another timer runs.
    """
    alarm = getattr(signal, "SIGALRM", None)  # Windows has none
    main = threading.current_thread() is threading.main_thread()
    if alarm is None or not main or any(signal.getitimer(signal.ITIMER_REAL)):
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"its import took more than {IMPORT_SECONDS:.0f} seconds")

    before = signal.signal(alarm, end)
    signal.setitimer(signal.ITIMER_REAL, IMPORT_SECONDS, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(alarm, before if before is not None else signal.SIG_DFL)


def restoring_imports() -> AbstractContextManager[None]:
    """Returns a manager that restores the global state that the import of a module changes."""
    from gibbon.core.global_state import importing_code  # here: it imports torch

    return importing_code()


def _points(group: str) -> list[EntryPoint]:
    """Returns the entry points of a group; packages with damaged metadata have none."""
    try:
        return list(entry_points(group=group))
    except Exception:  # noqa: BLE001  metadata in pieces raises anything
        found: list[EntryPoint] = []
        for package in distributions():
            with suppress(Exception):
                found += package.entry_points.select(group=group)
        return found


def _origin(point: EntryPoint) -> str:
    with suppress(Exception):  # damaged metadata
        if point.dist is not None and point.dist.name:
            return point.dist.name
    return point.value


def _twice(kind: str, entries: Sequence[Entry[Any]]) -> str:
    first, second, *_ = entries
    return (
        f"{kind} {first.name!r} is registered twice: by {first.origin} and by {second.origin}: "
        "uninstall one of them, or have its author rename it"
    )


def _said(broken: Sequence[Entry[Any]]) -> str:
    names = ", ".join(sorted({each.origin for each in broken}))
    return f" Packages that can't be imported may have registered it: {names}" if names else ""


def lazily(reference: str) -> Callable[[], Any]:
    """Returns a function that imports ``"package.module:name"`` when it is called.

    >>> lazily("math:tau")()
    6.283185307179586
    """

    def load() -> Any:
        module, _, name = reference.partition(":")
        return getattr(importlib.import_module(module), name)

    return load


def first_line(thing: object) -> str:
    """Returns the first line of an object's docstring, without its full stop."""
    lines = (inspect.getdoc(thing) or "").splitlines()
    return printable(lines[0]).rstrip(".") if lines else "(no description)"


def _entry(name: object, thing: Any, *, origin: str) -> Entry[Any]:
    if not isinstance(name, str) or not USABLE.fullmatch(name):
        raise ValueError(f"it registers the name {shown(name)}: expected letters, digits, . + - _")
    if isinstance(thing, Entry):
        return replace(thing, name=name, origin=origin)
    return Entry(name, first_line(thing), lambda: thing, origin)


def _broken(name: str, summary: str, *, origin: str, error: RequestError) -> Entry[Any]:
    def fail() -> Any:
        raise error

    return Entry(name, " ".join(summary.split()), fail, origin, broken=True)
