"""The applications that commands are registered in, and the order of `--help`."""

from __future__ import annotations

import typer

from gibbon.cli.command_classes import CommandsInOrder

app = typer.Typer(
    cls=CommandsInOrder,
    name="gibbon",
    help="Gibbon: how easily models are fooled, how sure they are when fooled, and how far "
    "examples made for one fool another.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


baseline_app = typer.Typer(help="Save a run as a small baseline file.")
plugin_app = typer.Typer(help="Write packages of your own attacks and models.")


app.add_typer(baseline_app, name="baseline", no_args_is_help=True)
app.add_typer(plugin_app, name="plugin", no_args_is_help=True)
