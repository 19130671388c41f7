"""The command `explain`: the pages of kinds of flags."""

from __future__ import annotations

from typing import Annotated

import typer

from gibbon.cli.output import print_lines, say
from gibbon.cli.typer_apps import app


@app.command()
def explain(
    kind: Annotated[
        str | None, typer.Argument(metavar="KIND", help="Kind of flag, such as zero-gradient.")
    ] = None,
) -> None:
    """Explain a kind of flag.

    Prints what was seen, why it matters, and what to do.  Without a kind, lists all kinds with
    their severity.
    """
    from gibbon.records.flag_kinds import KINDS, MEANINGS, SEVERITIES, flag_page

    if kind is not None:
        typer.echo(flag_page(kind), nl=False)
        return
    for severity in SEVERITIES:
        kinds = [each for each in KINDS.values() if each.severity == severity]
        say(f"{severity}: {MEANINGS[severity]}")
        print_lines([(f"  {each.name}", each.title) for each in kinds])
    say("gibbon explain KIND prints the page of a kind.")
