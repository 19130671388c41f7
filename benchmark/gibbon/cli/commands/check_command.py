"""The command `check`: an attack against the laws of attacks."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from gibbon.cli.arguments import parsed_norm
from gibbon.cli.command_classes import WithExamples
from gibbon.cli.defaults import DONE, FAILED
from gibbon.cli.grammar import read_parameters
from gibbon.cli.output import say
from gibbon.cli.typer_apps import app
from gibbon.core.errors import SpecError
from gibbon.core.threat import Norm


@app.command(
    cls=WithExamples,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    options_metavar="[--norm NORM] [--law LAW] [PARAMETERS]",
    epilog="""\
Your own attack:
    check attacks/mine.py:MyAttack
    check my_package.attacks:MyAttack --norm l2
With parameters of its own, and one law alone:
    check pgd --steps 10 --no-random-start --law optimum
An attack of another library:
    check foolbox:LinfPGD --steps 20 --rel-stepsize 0.1""",
)
def check(
    context: typer.Context,
    attack: Annotated[
        str,
        typer.Argument(
            metavar="ATTACK",
            help="path/to/mine.py:MyAttack, my_package:MyAttack, foolbox:LinfPGD, or a name of "
            "`list attacks`.",
        ),
    ],
    norm: Annotated[
        list[Norm] | None,
        typer.Option(
            parser=parsed_norm,
            metavar="NORM",
            help="Norm to check: linf, l2 or l1; may be repeated. [default: all of the attack]",
        ),
    ] = None,
    law: Annotated[
        list[str] | None,
        typer.Option(metavar="LAW", help="Law to check; may be repeated. [default: all]"),
    ] = None,
) -> None:
    """Check an attack against the laws of attacks.

    The laws are those that every attack of Gibbon keeps, tried on small models without data; exit
    code 1 if the attack breaks one.  Any other option is a parameter of the attack, such as
    --steps 20.
    """
    if attack.startswith("--"):
        raise SpecError(f"say which attack first: check ATTACK {attack} ...")
    parameters = read_parameters(context.args)

    from gibbon.conformance import check_attack, verdict_table
    from gibbon.conformance import laws as conformance
    from gibbon.report.text.terminal import print_table
    from gibbon.runner.run_progress.progress_bar import checking_bar

    laws = [conformance.law(name) for name in dict.fromkeys(law or ())] or conformance.LAWS
    with checking_bar() as bar:
        norms = norm or ()
        verdict = check_attack(attack, parameters=parameters, norms=norms, laws=laws, progress=bar)
    table = verdict_table(verdict)
    print_table(table, Console())
    for note in table.notes:
        say(note)
    raise typer.Exit(DONE if verdict.passed else FAILED)
