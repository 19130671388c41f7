"""Checks of attack parameters given on the command line."""

from __future__ import annotations

import dataclasses

from gibbon.attacks.factory import attack_class
from gibbon.cli.grammar import CommandRequest, as_flag, misspelt
from gibbon.core.errors import SpecError


def check_parameters(request: CommandRequest) -> None:
    """Raises `SpecError` if an attack lacks a parameter, which may be a misspelt option."""
    experiment = request.suite.experiments[-1]
    for spec in experiment.attacks:
        kind = attack_class(spec.name, where="--attack")
        if not dataclasses.is_dataclass(kind):
            continue  # refused when it is built
        known = [each.name for each in dataclasses.fields(kind) if each.init]
        for key in spec.parameters:
            if key in known or key in kind.reserved:
                continue
            flags = [as_flag(each) for each in known]
            raise SpecError(
                f"{as_flag(key)}: no such option, and attack {spec.name!r} has no such parameter"
                f"{misspelt(as_flag(key), flags)} Its parameters: {', '.join(flags) or 'none'}"
            )
