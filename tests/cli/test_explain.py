"""``explain`` prints the page of a kind of flag, at once, or the list of all kinds."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gibbon.cli.app import main
from gibbon.records.flag_kinds import KINDS, flag_page


def explain(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["gibbon", "explain", *words])
    try:
        main()
        code: object = 0
    except SystemExit as leaving:
        code = leaving.code or 0
    out, err = capsys.readouterr()
    assert isinstance(code, int)
    return code, out, err


def test_a_page_is_printed_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(monkeypatch, capsys, "wide-budget") == (0, flag_page("wide-budget"), "")


def test_all_kinds_are_listed_with_severity_and_title(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = explain(monkeypatch, capsys)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    severity, listed = "", {}
    for line in lines[:-1]:
        if line.startswith("  "):
            name, _, title = line.strip().partition(" ")
            listed[name] = (severity, title.strip())
        else:
            severity = line.partition(":")[0]
    assert listed == {each.name: (each.severity, each.title) for each in KINDS.values()}
    assert list(dict.fromkeys(each for each, _ in listed.values())) == [
        "serious",
        "warning",
        "note",
    ]


def test_an_unknown_kind_is_refused_with_the_nearest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = explain(monkeypatch, capsys, "zero-gradent")
    assert (code, out) == (2, "")
    assert "there is no kind of flag 'zero-gradent'; did you mean 'zero-gradient'?" in err


def test_it_imports_neither_torch_nor_pandas() -> None:
    script = (
        "import sys\nfrom gibbon.cli.app import main\nsys.argv = ['gibbon', 'explain', "
        "'zero-gradient']\ntry:\n    main()\nfinally:\n    heavy = {'torch', 'pandas', 'numpy', "
        "'pyarrow', 'matplotlib'}\n    print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
