"""The suite that closes the gaps of an audit."""

from __future__ import annotations

from typing import Any

from gibbon.audit.checklist import Audit
from gibbon.records.run import RunRecord
from gibbon.specs.naming import label_from, unlike
from gibbon.specs.suite import Suite

VOUCHES = ("trust_code", "trust_pickle")


def suggested_suite(record: RunRecord, audit: Audit) -> Suite:
    """Returns the suite of a run with the attacks that its audit misses.

    Attacks that several items miss are added once.  Its name is the run's, so that it continues in
    the run's folder: cells that are there are not computed again.  It vouches for no file: that a
    run was trusted with a file says nothing of the file that is there when the suite is run.
    """
    experiments = []
    for experiment in record.suite.experiments:
        written: dict[str, Any] = experiment.model_dump(exclude_defaults=True)
        attacks: list[dict[str, Any]] = list(written.get("attacks", ()))
        wanted = False
        for facts, _, answer in audit.gaps:
            if facts.dataset != experiment.dataset.name:
                continue
            wanted |= answer.transfer
            for more in answer.attacks:
                _add(attacks, dict(more))
        written["attacks"] = attacks
        written["models"] = [_without_vouch(each) for each in written["models"]]
        if wanted and len(experiment.models) > 1 and attacks and not experiment.error_only:
            done = written.get("transfer") or {"attacks": ()}
            labels = [_label(each) for each in attacks if not _is_noise(each)]
            written["transfer"] = done if done["attacks"] else {"attacks": labels[:1]}
        experiments.append(written)
    own = record.suite.model_dump(exclude_defaults=True, exclude={"experiments"})
    return Suite.model_validate({**own, "experiments": experiments})


def _without_vouch(model: dict[str, Any]) -> dict[str, Any]:
    """Returns the keys of a model, and of its members, without those that vouch for its files."""
    kept = {key: value for key, value in model.items() if key not in VOUCHES}
    if "ensemble" in kept:
        kept["ensemble"] = [_without_vouch(each) for each in kept["ensemble"]]
    return kept


def _label(entry: dict[str, Any]) -> str:
    return str(entry.get("label") or label_from(entry["name"]))


def _is_noise(entry: dict[str, Any]) -> bool:
    return str(entry["name"]).startswith("noise-")


def _add(attacks: list[dict[str, Any]], more: dict[str, Any]) -> None:
    """Adds an entry, unless one that differs in its label alone is there; labels stay unique."""

    def content(entry: dict[str, Any]) -> dict[str, Any]:
        return {key: _plain(value) for key, value in entry.items() if key != "label"}

    if any(content(each) == content(more) for each in attacks):
        return
    (label,) = unlike([_label(more)], taken=map(_label, attacks))
    attacks.append({**more, "label": label})


def _plain(value: Any) -> Any:
    return [str(each) for each in value] if isinstance(value, list | tuple) else value
