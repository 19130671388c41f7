"""The command of ``make fuzz``: fuzzes all targets, or some, for some seconds or cases.

``python -m tools.fuzz --seconds 60 --seed 0 [TARGET ...]`` divides the time among the targets, each
in a process of its own, so that a crash or an endless case is a finding, too.  Each finding is
written to a folder, with the command that replays it.  Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tools.fuzz.cases import copied, files_in, write_files
from tools.fuzz.fuzz_targets import TARGETS
from tools.fuzz.judging import CaseLimits, Finding, judge
from tools.fuzz.search import Found, Search

FINDINGS = Path("build/fuzz")
SECONDS = 120.0
MANY = 10**9
ENDLESS = 300.0  # seconds without another case
FILES, ABOUT = "files", "finding.txt"


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the arguments of the command."""
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}; all by default")
    parser.add_argument("--seconds", type=float, help=f"of all targets together ({SECONDS:g})")
    parser.add_argument("--cases", type=int, help="of each target, instead of a time")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other cases")
    parser.add_argument("--findings", type=Path, default=FINDINGS, help="folder for findings")
    parser.add_argument("--replay", type=Path, help="folder of a finding, to read it again")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    if unknown := set(given.targets) - set(TARGETS):
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    if given.replay is not None and len(given.targets) != 1:
        parser.error("--replay needs the one target that reads the folder")
    return given


def main(words: Sequence[str] | None = None) -> int:
    """Fuzzes or replays; returns 1 if something was found, 130 if it was interrupted."""
    given = arguments(words)
    try:
        if given.replay is not None:
            return _replay(given.targets[0], given.replay, given.findings)
        if given.worker:
            return _fuzz(given)
        found = [_watch(target, given) for target in given.targets or TARGETS]
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    return 1 if any(found) else 0


def _fuzz(given: argparse.Namespace) -> int:
    (target,) = given.targets
    search = Search(target, _scratch(given.findings, target))
    found: list[Found] = []

    def report(each: Found) -> None:
        found.append(each)
        _write(target, each.finding, given.findings, search)
        folder = given.findings / f"{target}-{each.finding.key}"
        write_files(each.files, folder / FILES)

    started = time.monotonic()
    try:
        for entry in search.entries:
            finding = search.judge(search.corpus_case(entry))
            if finding is not None:
                search.known.add(finding.key)
                report(Found(search.corpus_case(entry), files_in(search.scratch), finding))
        search.run(
            cases=given.cases or MANY,
            seconds=given.seconds or MANY,
            first_seed=given.seed,
            report=report,
            progress=lambda tried: _say(f"  {target}: {tried:,} cases"),
        )
    finally:
        took = time.monotonic() - started
        _say(
            f"{target}: {search.tried:,} cases of {len(search.entries)} files or folders in "
            f"{took:.0f} s, {len(found)} findings"
        )
    return 1 if found else 0


def _watch(target: str, given: argparse.Namespace) -> bool:
    """Fuzzes a target in a process of its own; returns whether something was found."""
    seconds = None
    if given.cases is None:
        seconds = (given.seconds or SECONDS) / len(given.targets or TARGETS)
    end = None if seconds is None else time.monotonic() + seconds
    number, anything = given.seed, False
    while True:
        words = [sys.executable, "-m", "tools.fuzz", target, "--worker", "--seed", str(number)]
        words += ["--findings", str(given.findings)]
        if given.cases is not None:
            words += ["--cases", str(given.cases)]
        if end is not None:
            words += ["--seconds", str(max(1.0, end - time.monotonic()))]
        with subprocess.Popen(words) as process:  # noqa: S603  our own module
            code = _wait(process, _scratch(given.findings, target))
        if code in (0, 1):
            return anything or code == 1
        if code == 130:
            raise KeyboardInterrupt
        # It crashed or never ended: the case is still in its folder.
        anything = True
        finding = Finding("crash", f"ended with {code}", target)
        scratch = _scratch(given.findings, target)
        folder = given.findings / f"{target}-{finding.key}-{number}"
        if not scratch.exists():
            _say(f"{target}: the process that reads ended with {code} before the first case")
            return True
        copied(scratch, folder / FILES)
        _note(target, finding, folder)
        number += 1_000
        if end is None or time.monotonic() > end:
            return True


def _wait(process: subprocess.Popen[bytes], scratch: Path) -> int:
    """Returns the exit code of a process, which is killed if no other case follows for long."""
    latest = time.time()
    while True:
        try:
            return process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            with suppress(FileNotFoundError):  # between two cases there is none
                latest = max(latest, scratch.stat().st_mtime)
            if time.time() - latest > ENDLESS:
                process.kill()


def _replay(target: str, folder: Path, findings: Path) -> int:
    source = folder / FILES if (folder / FILES).is_dir() else folder
    scratch = _scratch(findings, f"{target}-replay")
    copied(source, scratch)
    finding = judge(TARGETS[target].read, scratch, CaseLimits())
    _say(f"{finding.kind}: {finding.details}" if finding else "no finding: success, or a refusal")
    return 1 if finding else 0


def _write(target: str, finding: Finding, findings: Path, search: Search) -> None:
    folder = findings / f"{target}-{finding.key}"
    folder.mkdir(parents=True, exist_ok=True)
    _note(target, finding, folder)


def _note(target: str, finding: Finding, folder: Path) -> None:
    text = f"{target}: {finding.kind}: {finding.summary} in {finding.place or 'a library'}"
    (folder / ABOUT).write_text(f"{text}\n\n{finding.details}", encoding="utf-8", errors="replace")
    _say(f"{text}\n  replay: python -m tools.fuzz {target} --replay {folder}")


def _scratch(findings: Path, target: str) -> Path:
    return findings.absolute() / ".cases" / target


def _say(text: str) -> None:
    sys.stdout.write(text.encode(errors="replace").decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
