"""The models of a suite whose files the user vouches for, so that they may run any code."""

from __future__ import annotations

from gibbon.specs.suite import ModelSpec, Suite


def vouches(suite: Suite) -> tuple[str, ...]:
    """Returns the names of the models of a suite whose files may run code."""
    models = [each for experiment in suite.experiments for each in experiment.models]
    return tuple(dict.fromkeys(each.name for each in models if _is_trusted(each)))


def _is_trusted(model: ModelSpec) -> bool:
    return model.trusted or any(map(_is_trusted, model.ensemble))
