"""The command `baseline save`: the errors of a run as a small file."""

from __future__ import annotations

from typing import Annotated

import typer

from gibbon.cli.arguments import ACCEPT, accepted_kinds, place
from gibbon.cli.options import BY_FLAG
from gibbon.cli.output import say
from gibbon.cli.typer_apps import baseline_app
from gibbon.records.stores import Store


@baseline_app.command("save")
def baseline_save(
    run_folder: Annotated[
        Store, typer.Argument(parser=place, metavar="RUN", help="Folder of a run, or its URL.")
    ],
    file: Annotated[
        Store,
        typer.Argument(
            parser=place, metavar="FILE", help="File for the baseline, such as robust.json."
        ),
    ],
    accept: Annotated[
        list[str] | None, typer.Option(metavar="KIND", help=BY_FLAG[ACCEPT].help)
    ] = None,
) -> None:
    """Save the errors of a run as a baseline file.

    The file holds one bit per example and measure.  Exit code 1, and no file, if the run has a
    serious flag that nobody accepted: neither its suite, nor the limits next to the file, nor
    --accept.
    """
    from gibbon.gate.baseline import save_baseline
    from gibbon.gate.limits import default_limits, read_limits

    with run_folder.reading() as folder, file.writing_file() as local:
        limits = default_limits(local)
        saved = save_baseline(
            folder,
            local,
            limits=read_limits(limits) if limits is not None else None,
            where=str(limits or ""),
            accept=accepted_kinds(accept),
        )
        size = local.stat().st_size
    say(f"{file}: {saved.measures} measures, {size / 1000:.1f} kB")
