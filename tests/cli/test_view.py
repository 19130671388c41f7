"""``gibbon view``: the printed address, links that somebody has sent, and wrong requests."""

from __future__ import annotations

import json
import webbrowser
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gibbon.cli.app import app
from gibbon.core.errors import RequestError, SpecError
from gibbon.report.viewer.server import ViewerServer
from tests.made_up import made_up_record


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that a browser was opened with; the server ends as by Ctrl-C."""
    seen: list[str] = []

    def interrupted(self: ViewerServer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(webbrowser, "open", seen.append)
    monkeypatch.setattr(ViewerServer, "serve_forever", interrupted)
    return seen


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    record = made_up_record()
    rows = [each.model_copy(update={"digest": "0123"}) for each in record.evaluations]
    record.model_copy(update={"evaluations": tuple(rows)}).write(tmp_path)
    return tmp_path


def view(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["view", *map(str, words)])


def test_it_prints_the_address_and_opens_it(folder: Path, opened: list[str]) -> None:
    found = view(folder, "--port", "0")
    assert found.exit_code == 0, found.output
    (address,) = opened
    assert address in found.output.replace("\n", "")
    assert address.startswith("http://127.0.0.1:")
    assert "?token=" in address
    assert view(folder, "--port", "0", "--no-browser").exit_code == 0
    assert len(opened) == 1


@pytest.mark.parametrize(
    "link", ["http://127.0.0.1:8643/#model=softmax&example=17", "model=softmax&example=17"]
)
def test_a_link_that_was_sent_leads_to_its_example(
    folder: Path, opened: list[str], link: str
) -> None:
    assert view(folder, "--port", "0", "--link", link).exit_code == 0
    assert opened[0].endswith("#model=softmax&example=17")


def test_wrong_requests_are_named(folder: Path, opened: list[str], tmp_path: Path) -> None:
    found = view(folder, "--link", "nothing")
    assert isinstance(found.exception, SpecError)
    assert "expected a link" in str(found.exception)
    found = view(tmp_path / "nowhere")
    assert isinstance(found.exception, RequestError)
    record = made_up_record()
    (folder / "run.json").unlink()
    record.model_copy(update={"evaluations": ()}).write(folder)
    found = view(folder)
    assert "no cell that is done" in str(found.exception)
    assert not opened
    assert json.loads((folder / "run.json").read_text())["status"]


def test_a_url_is_no_folder_of_this_machine(opened: list[str]) -> None:
    found = view("memory://a/run")
    assert isinstance(found.exception, SpecError)
    assert "copy memory://a/run to one" in str(found.exception)
    assert not opened
