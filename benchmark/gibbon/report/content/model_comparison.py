"""Sentences under the headline: which of the models are more robust than which."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gibbon.core.threat import Epsilon, Norm
from gibbon.metrics.paired_tests import rounded
from gibbon.records.run import ModelComparison
from gibbon.report.content.lookup import RunLookup
from gibbon.report.content.number_format import p_text
from gibbon.specs.suite import Experiment

MOST = 5  # pairs that are named; the others are counted
TEST = "McNemar's exact test"
Threat = tuple[Norm, bool]


def comparison_notes(results: RunLookup, experiment: Experiment) -> Iterator[str]:
    """Yields a sentence or two about each threat model, at its largest epsilon.

    They say which of two models has the smaller worst-case error, and which pairs of models can't
    be distinguished.  Runs of one model have none.
    """
    largest: dict[Threat, Epsilon] = {}
    rows = [each for each in results.record.comparisons if each.dataset == experiment.dataset.name]
    for each in rows:
        threat = (each.norm, each.clip)
        largest[threat] = max(each.epsilon, largest.get(threat, each.epsilon))
    for (norm, clip), epsilon in largest.items():
        pairs = [
            each for each in rows if (each.norm, each.clip, each.epsilon) == (norm, clip, epsilon)
        ]
        where = f"{norm.symbol}, ε = {epsilon}, {'clipped' if clip else 'not clipped'}"
        yield f"{where}: {' '.join(_sentences(pairs))}"


def _sentences(pairs: Sequence[ModelComparison]) -> Iterator[str]:
    if len(pairs) == 1:
        yield _only_pair(pairs[0])
        return
    examples = min(each.examples for each in pairs)
    clear = [each for each in pairs if each.more_robust]
    unclear = [each for each in pairs if not each.more_robust]
    yield (
        f"of {len(pairs)} pairs of models, {len(clear)} differ significantly on the same "
        f"{examples:,} examples ({TEST}, 5 % level, Holm's correction)."
    )
    if unclear:
        named = "; ".join(map(_unclear, unclear[:MOST]))
        more = f"; and {len(unclear) - MOST} more pairs" if len(unclear) > MOST else ""
        yield f"Can't be distinguished: {named}{more}."


def _only_pair(pair: ModelComparison) -> str:
    if not pair.more_robust:
        return f"with {pair.examples:,} examples, these can't be distinguished: {_unclear(pair)}."
    first = pair.more_robust == pair.first
    better, worse = (pair.first, pair.second) if first else (pair.second, pair.first)
    fewer, more = sorted((pair.only_first, pair.only_second))
    return (
        f"{better} is more robust than {worse}: of the same {pair.examples:,} examples, {more:,} "
        f"are misclassified by {worse} alone and {fewer:,} by {better} alone ({TEST}, "
        f"{p_text(pair.p_value)})."
    )


def _unclear(pair: ModelComparison) -> str:
    names = f"{pair.first} and {pair.second}"
    if pair.only_first == pair.only_second == 0:
        return f"{names} (misclassified on the same examples)"
    counts = f"{pair.only_first:,} against {pair.only_second:,} examples, {p_text(pair.p_value)}"
    if pair.examples_needed is None:
        return f"{names} ({counts})"
    return f"{names} ({counts}; about {rounded(pair.examples_needed):,} would be needed)"
