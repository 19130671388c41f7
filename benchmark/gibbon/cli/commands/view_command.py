"""``gibbon view``: serves the examples of a run until it is stopped."""

from __future__ import annotations

import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from gibbon.cli.defaults import RUNS
from gibbon.cli.output import say
from gibbon.cli.typer_apps import app
from gibbon.core.errors import SpecError
from gibbon.records.stores import is_url


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
    from gibbon.records.run import RunRecord
    from gibbon.report.viewer.examples import RunExamples
    from gibbon.report.viewer.server import ViewerServer

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


@app.command()
def view(
    run_name: Annotated[
        str, typer.Argument(metavar="RUN", help="Folder of a run, or its name in results/runs.")
    ],
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Port; 0 for any. [default: the first free one from 8643]"
        ),
    ] = None,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Only print the address.")
    ] = False,
    link: Annotated[
        str, typer.Option(metavar="LINK", help="Link to an example that somebody has sent.")
    ] = "",
) -> None:
    """Look at single examples of a run in the browser.

    The page filters examples by model, attack, epsilon, class, confidence, outcome and agreement
    between models, and shows pictures, the change, and the answers of all models.  It is served on
    this machine alone until Ctrl-C.  Pictures of all examples need a run with --keep-examples.
    """
    from gibbon.report import documents

    if is_url(run_name):
        raise SpecError(f"view reads a folder of this machine: copy {run_name} to one, and name it")
    serve_examples(
        documents.run_folder(run_name, runs=RUNS), port=port, browser=not no_browser, link=link
    )
