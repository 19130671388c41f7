"""Sentences under the headline: which of the models are more robust than which."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from gibbon.core.threat import Epsilon, Norm
from gibbon.metrics.paired_tests import rounded
from gibbon.records.flags import kinds_in
from gibbon.records.run import ModelComparison
from gibbon.report.content.parts.lookup import RunLookup
from gibbon.report.content.parts.number_format import p_text
from gibbon.specs.suite import Experiment

MOST = 5  # pairs that are named; the others are counted
TEST = "McNemar's exact test"
Budget = tuple[Norm, bool, Epsilon]


def comparison_notes(
    results: RunLookup, experiment: Experiment, threats: Iterable[Budget] | None = None
) -> Iterator[str]:
    """Yields a sentence or two about each threat model, at its largest epsilon.

    They say which of two models has the smaller worst-case error, and which pairs of models can't
    be distinguished.  Runs of one model have none.

    Args:
        results: the run.
        experiment: the experiment.
        threats: norms, clipping rules and epsilons to compare at, in place of the largest epsilons.
    """
    rows = [each for each in results.record.comparisons if each.dataset == experiment.dataset.name]
    if threats is None:
        largest: dict[tuple[Norm, bool], Epsilon] = {}
        for each in rows:
            threat = (each.norm, each.clip)
            largest[threat] = max(each.epsilon, largest.get(threat, each.epsilon))
        threats = [(*threat, epsilon) for threat, epsilon in largest.items()]
    for norm, clip, epsilon in threats:
        pairs = [
            each for each in rows if (each.norm, each.clip, each.epsilon) == (norm, clip, epsilon)
        ]
        if not pairs:
            continue
        where = f"{norm.symbol}, ε = {epsilon}, {'clipped' if clip else 'not clipped'}"
        yield f"{where}: {' '.join(_sentences(pairs))}{_in_doubt(results, pairs)}"


def _in_doubt(results: RunLookup, pairs: Sequence[ModelComparison]) -> str:
    """Returns a sentence about models whose errors have a serious flag; empty if none has one."""
    compared = list(dict.fromkeys(name for each in pairs for name in (each.first, each.second)))
    kinds = {kind for each in pairs for kind in kinds_in(each.flags)}
    serious = [flag for flag in results.record.flags if flag.counts and flag.kind in kinds]
    doubtful = [name for name in compared if any(flag.model in ("", name) for flag in serious)]
    if not doubtful:
        return ""
    return f" Not to be used as it is: {' and '.join(doubtful)} with serious flags."


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
