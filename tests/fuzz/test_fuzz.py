"""Mutants of the files that Gibbon reads end in success or in a sentence.

``make fuzz`` looks further.  A finding is mended where it comes from, and its files become an entry
of the corpus, ``corpus/TARGET/found-...``.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gibbon.core.errors import RecordError, RequestError
from tools.fuzz import __main__ as fuzz
from tools.fuzz.cases import CORPUS, Case, Corpus, write_files
from tools.fuzz.fuzz_targets import TARGETS, FuzzTarget
from tools.fuzz.judging import CaseLimits, Finding, judge
from tools.fuzz.search import Found, Search

CASES = 200
FEWER = {
    **{"run-folders": 15, "viewed-examples": 15, "resumed-runs": 5, "reports": 1},
    "shards": 15,
    **{"suites": 60, "baselines": 60, "limits": 60, "pictures": 60, "decode-caches": 100},
}
# No limit of time: machines are shared; a case that never ends is found by `make fuzz`.
LIMITS = CaseLimits(seconds=120.0, wall_seconds=600.0)
pytestmark = pytest.mark.filterwarnings("ignore")  # of damaged pictures and arrays


def searched(target: str, folder: Path, *, seed: int, cases: int) -> list[Finding]:
    search = Search(target, folder / "case", LIMITS)
    found = [search.judge(search.corpus_case(entry)) for entry in search.entries]
    more: list[Found] = []
    search.run(cases=cases, seconds=3600, first_seed=seed, report=more.append)
    assert search.tried >= cases
    return [*filter(None, found), *(each.finding for each in more)]


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_and_some_mutants_of_it(target: str, tmp_path: Path) -> None:
    assert searched(target, tmp_path, seed=2026, cases=FEWER.get(target, CASES)) == []


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_valid_is_read(target: str, tmp_path: Path) -> None:
    """A target that refuses everything finds nothing."""
    search = Search(target, tmp_path / "case", LIMITS)
    valid = [each for each in search.entries if not each.startswith(("found-", "made-up"))]
    for entry in valid:
        write_files(search.files(Case(entry, ())), tmp_path / entry)
        TARGETS[target].read(tmp_path / entry)
    assert valid


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_more_mutants(target: str, tmp_path: Path) -> None:
    cases = 10 * FEWER.get(target, CASES)
    assert searched(target, tmp_path, seed=7, cases=cases) == []


def test_the_corpus_is_small() -> None:
    files = [each for each in CORPUS.rglob("*") if each.is_file()]
    assert sum(each.stat().st_size for each in files) < 400_000
    assert {each.name for each in CORPUS.iterdir()} == {
        target.corpus or name for name, target in TARGETS.items()
    }


@pytest.mark.parametrize(
    ("target", "entry"), [("baselines", "version-4"), ("run-folders", "whole")]
)
def test_mutants_are_sealed(target: str, entry: str, tmp_path: Path) -> None:
    """A mutant that is refused for its checksum alone shows nothing of what is read after it."""
    search = Search(target, tmp_path / "case", LIMITS)
    mismatches = 0
    for seed in range(30):
        write_files(search.files(Case(entry, (seed,))), tmp_path / "case")
        try:
            TARGETS[target].read(tmp_path / "case")
        except RequestError as error:
            mismatches += "checksum" in str(error)
    assert mismatches < 10


def test_a_case_is_the_same_each_time() -> None:
    corpus = Corpus.read(CORPUS / "suites", (".toml",))
    case = Case("short", (1, 2, 3))
    assert corpus.files(case) == corpus.files(case)
    assert corpus.files(case) != corpus.files(Case("short", (1, 2)))


# The harness finds what it should


def raises_key_error(folder: Path) -> None:
    if b"two" not in (folder / "a.json").read_bytes():
        raise KeyError("two")


def never_ends(folder: Path) -> None:
    while True:
        pass


def waits(folder: Path) -> None:
    time.sleep(3600)


def takes_memory(folder: Path) -> None:
    try:
        bytearray(1 << 32)
    except MemoryError as error:
        raise RecordError("memory ran out") from error


def says_nothing(folder: Path) -> None:
    raise RecordError("")


def exits(folder: Path) -> None:
    sys.exit(3)


@pytest.mark.parametrize(
    ("read", "kind"),
    [
        (never_ends, "too slow"),
        (waits, "too slow"),
        (says_nothing, "unclear refusal"),
        (exits, "exception"),
        pytest.param(
            takes_memory,
            "too much memory",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="limits of the kernel"),
        ),
    ],
)
def test_what_is_no_refusal_is_a_finding(
    read: Callable[[Path], None], kind: str, tmp_path: Path
) -> None:
    found = judge(read, tmp_path, CaseLimits(seconds=0.2, wall_seconds=0.5))
    assert found is not None
    assert found.kind == kind
    assert judge(lambda folder: None, tmp_path, LIMITS) is None


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A target with a fault, and its corpus."""
    entry = tmp_path / "corpus" / "planted" / "one"
    entry.mkdir(parents=True)
    (entry / "a.json").write_text('{"one": [1, 2, 3], "two": {"three": "four"}}')
    monkeypatch.setitem(TARGETS, "planted", FuzzTarget(raises_key_error, (".json",)))
    return tmp_path


def test_a_finding_is_made_smaller_written_and_replayed(
    planted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(planted)
    search = Search("planted", planted / "case", LIMITS, corpus=planted / "corpus")
    found: list[Found] = []
    search.run(cases=100, seconds=600, first_seed=0, report=found.append)
    (one,) = [each for each in found if each.finding.summary == "KeyError: 'two'"]
    assert len(one.case.mutations) == 1

    write_files(one.files, planted / "finding" / fuzz.FILES)
    words = ["planted", "--replay", str(planted / "finding"), "--findings", str(planted / "out")]
    assert fuzz.main(words) == 1
    assert "KeyError: 'two'" in capsys.readouterr().out


@pytest.mark.slow
def test_the_command_fuzzes_one_target(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert fuzz.main(["proved-ids", "--cases", "5", "--findings", str(tmp_path)]) == 0
    assert "proved-ids: 5 cases of 1 files or folders" in capfd.readouterr().out


def test_a_crash_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The process that reads ended without a word: the case that it read is kept."""
    case = tmp_path / ".cases" / "lists"
    write_files({"list.csv": b"path,label", "a/pipe": "pipe"}, case)
    monkeypatch.setattr(fuzz, "_wait", lambda process, scratch: -signal.SIGSEGV)
    monkeypatch.setattr(fuzz.subprocess, "Popen", Ended)
    assert fuzz.main(["lists", "--cases", "5", "--findings", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "lists: crash: ended with -11" in said
    (folder,) = tmp_path.glob("lists-*")
    assert (folder / fuzz.FILES / "list.csv").read_bytes() == b"path,label"
    assert (folder / fuzz.FILES / "a" / "pipe").is_fifo()


class Ended:
    """A process that has ended."""

    def __init__(self, words: list[str]) -> None:
        self.words = words

    def __enter__(self) -> Ended:
        return self

    def __exit__(self, *_: object) -> None: ...


def test_a_process_without_another_case_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz, "ENDLESS", 0.5)
    with fuzz.subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        assert fuzz._wait(process, tmp_path / "none") == -signal.SIGKILL


def test_a_process_between_two_cases_is_not_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder of a case is removed before the next one is made."""
    scratch = tmp_path / "case"
    scratch.mkdir()
    clock = iter([0.0, 290.0, 310.0])

    class Process:
        looks = 0

        def wait(self, timeout: float) -> int:
            self.looks += 1
            if self.looks == 1:
                os.utime(scratch, (280.0, 280.0))
            elif self.looks == 2:
                scratch.rmdir()
            else:
                return 0
            raise fuzz.subprocess.TimeoutExpired("fuzz", timeout)

        def kill(self) -> None:
            raise AssertionError("it was killed")

    monkeypatch.setattr(fuzz.time, "time", lambda: next(clock))
    assert fuzz._wait(Process(), scratch) == 0


def test_wrong_words_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["suite"], ["--replay", "x"]):
        with pytest.raises(SystemExit) as left:
            fuzz.main(words)
        assert left.value.code == 2
    assert "no target suite" in capsys.readouterr().err
