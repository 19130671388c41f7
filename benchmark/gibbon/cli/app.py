"""The command line: `evaluate`, `run`, `report`, `check`, `list`, `explain`, `train` and others.

Exit codes: 0 done; 1 a cell failed, a regression or a doubtful improvement was found, ``--strict``
met a serious flag, or an attack breaks a law; 2 the request was wrong; 3 shards to merge are
missing or not finished; 130 interrupted, 143 terminated, 129 hung up.  torch is imported only once
a command needs it, so that ``--help`` and ``list`` answer at once.
"""

from __future__ import annotations

import os
import platform
import signal
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperCommand

from gibbon.cli.command_classes import Command
from gibbon.cli.commands import (  # noqa: F401  each registers its commands
    audit_command,
    baseline_command,
    check_command,
    compare_command,
    evaluate_command,
    explain_command,
    init_command,
    list_command,
    merge_command,
    plugin_command,
    report_command,
    run_command,
    sweep_command,
    train_command,
    view_command,
)
from gibbon.cli.defaults import BY_SIGNAL, DONE, FAILED, INCOMPLETE, INTERRUPTED, WRONG_REQUEST
from gibbon.cli.exit_code import exit_code_protected
from gibbon.cli.output import say
from gibbon.cli.typer_apps import app as app
from gibbon.cli.typer_apps import baseline_app, plugin_app
from gibbon.core.endings import ENDING, Terminated
from gibbon.core.errors import FlagError, IncompleteError, RequestError, SpecError
from gibbon.core.plain_text import shown, without_controls
from gibbon.core.reading import expanded, text_problem
from gibbon.core.registry import PACKAGE

CONTINUED = ("run", "evaluate", "sweep", "train")  # commands that keep what is done


def _print_version(given: bool) -> None:
    if given:
        say(f"gibbon {version(PACKAGE)}, Python {platform.python_version()}{_torch_version()}")
        raise typer.Exit(DONE)


def _torch_version() -> str:
    try:
        return f", torch {version('torch')}"
    except PackageNotFoundError:
        return ""


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the versions of Gibbon, Python and torch.",
        ),
    ] = False,
) -> None:
    """Options of the command itself."""


_apps = (app, baseline_app, plugin_app)


for _command in [each for one in _apps for each in one.registered_commands]:
    if _command.cls is None or _command.cls is TyperCommand:
        _command.cls = Command


def main() -> None:
    """Runs the command line: the entry point of ``gibbon`` and ``run_benchmark.py``."""
    # Threads that spin while they wait occupy cores that other processes need: on two busy cores
    # the default suite took 4.5 minutes with spinning and 1.9 without.  Read once by torch.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    interrupting = signal.getsignal(signal.SIGINT)
    is_process = sys._getframe(1).f_globals.get("__name__") == "__main__"  # not called by a test
    _save_at_signals()
    try:
        with exit_code_protected(to_the_end=is_process):
            _run_command()
    finally:
        ENDING.reason = None
        if interrupting is not None:  # it was installed by Python
            signal.signal(signal.SIGINT, interrupting)


def _run_command() -> None:
    try:
        _check_words(sys.argv[1:])
        with warnings.catch_warnings():
            warnings.showwarning = _print_warning
            app()
    except (RequestError, FlagError) as error:
        # Without emoji: the :x: of net.py:x:Net is none.
        console = Console(stderr=True, emoji=False)
        console.print(f"[bold red]error:[/] {escape(without_controls(str(error)))}", soft_wrap=True)
        sys.exit(FAILED if isinstance(error, FlagError) else WRONG_REQUEST)
    except IncompleteError as error:
        for sentence in str(error).split("; "):
            say(without_controls(sentence), err=True)
        say("not merged: nothing is written; run the command again later", err=True)
        sys.exit(INCOMPLETE)
    except (OSError, MemoryError, RecursionError, UnicodeError) as error:
        if isinstance(error, BrokenPipeError):
            raise
        sentence = _environment_sentence(error)
        Console(stderr=True, emoji=False).print(f"[bold red]error:[/] {escape(sentence)}")
        sys.exit(WRONG_REQUEST)
    except Terminated as terminated:
        _end(BY_SIGNAL + terminated.signal, _interruption())
    except SystemExit as leaving:
        # 130 is what typer makes of Ctrl-C.
        _end(leaving.code, _interruption() if leaving.code == INTERRUPTED else "")


def _interruption() -> str:
    """Returns what is said of an interrupted command; options may come before its name."""
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    if command in CONTINUED:
        return "interrupted; what was done is kept: run the same command again to continue"
    return "interrupted"


def _end(code: str | int | None, sentence: str) -> NoReturn:
    if sentence:
        with suppress(OSError):  # the terminal may be closed
            say(sentence, err=True)
    sys.exit(code)


def _check_words(words: Sequence[str]) -> None:
    """Raises `SpecError` for a word that can't be a name or a path in tables and records."""
    for word in words:
        problem = text_problem(word)
        if problem:
            raise SpecError(f"the argument {shown(word)} {problem}")
        if word.startswith("~"):
            expanded(word, SpecError)


def _environment_sentence(error: BaseException) -> str:
    """Returns a sentence on an error of this machine that no reader of a file has caught."""
    if isinstance(error, MemoryError):
        return f"memory ran out: {error or 'a file may be damaged, or too large for this machine'}"
    if isinstance(error, RecursionError):
        return "a file or an option is nested too deeply"
    place = getattr(error, "filename", None)
    reason = getattr(error, "strerror", None) or str(error)
    return without_controls(f"{place}: {reason}" if place else f"{type(error).__name__}: {reason}")


def _save_at_signals() -> None:
    """Lets the signals that end a process raise `Terminated`, so that a run saves what is done.

    SIGHUP stays ignored if it is, as by ``nohup``, and SIGINT in a background job of a shell.
    """
    ENDING.reason = None
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, ENDING.interrupt)
    signal.signal(signal.SIGTERM, ENDING.terminate)
    hang_up = getattr(signal, "SIGHUP", None)  # Windows has none
    if hang_up is not None and signal.getsignal(hang_up) is not signal.SIG_IGN:
        signal.signal(hang_up, ENDING.terminate)


def _print_warning(message: Warning | str, *_: object, **__: object) -> None:
    say(f"warning: {' '.join(str(message).split())}", err=True)


if __name__ == "__main__":
    main()
