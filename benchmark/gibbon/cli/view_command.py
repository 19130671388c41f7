"""``gibbon view``: serves the examples of a run until it is stopped."""

from __future__ import annotations

import webbrowser
from contextlib import suppress
from pathlib import Path

from gibbon.cli.output import say
from gibbon.core.errors import SpecError
from gibbon.records.run import RunRecord
from gibbon.report.viewer.examples import RunExamples
from gibbon.report.viewer.server import ViewerServer


def serve_examples(folder: Path, *, port: int | None, browser: bool, link: str) -> None:
    """Serves the examples of a run on this machine until Ctrl-C.

    Args:
        folder: the run's folder.
        port: the port; the first free one of a few if None.
        browser: whether to open the page.
        link: a link to an example that somebody has sent, or what follows its ``#``.

    Raises `RecordError` if the run can't be read, and `SpecError` if it has no cell that is done or
    the port is in use.
    """
    examples = RunExamples(RunRecord.read(folder), folder)
    if not examples.cells():
        raise SpecError(f"{folder}: has no cell that is done: there are no examples to show")
    state = link.rpartition("#")[2] if "#" in link or "=" in link else ""
    if link and not state:
        raise SpecError(
            f"expected a link to an example, such as http://127.0.0.1:8643/#model=net&example=17, "
            f"got {link!r}",
            where="--link",
        )
    with ViewerServer(examples, port) as server:
        address = server.address(state)
        say(f"{address}\nOpen this address; it is for you alone, on this machine. Ctrl-C ends.")
        if browser:
            with suppress(webbrowser.Error):
                webbrowser.open(address)
        with suppress(KeyboardInterrupt):
            server.serve_forever()
