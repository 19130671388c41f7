"""Prints the estimate of a run, for ``run --dry-run``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from gibbon.cli.output import say
from gibbon.core.shard import Shard
from gibbon.report.content.parts.layout import Column, Table, TableCell
from gibbon.report.text.terminal import print_table
from gibbon.runner.estimate.attack_passes import NumberRange
from gibbon.runner.estimate.dry_run import DryRun, dry_run
from gibbon.runner.estimate.range_text import duration, money, number, size
from gibbon.runner.run_progress.progress_bar import RunProgress
from gibbon.runner.settings import RunSettings
from gibbon.specs.suite import Suite

HOUR = 3600.0


def print_estimate(
    suite: Suite,
    folder: Path,
    settings: RunSettings,
    *,
    shard: Shard | None,
    price: float | None,
    where: str,
) -> None:
    """Prints what a run of a suite, or of a shard of it, will take.

    Args:
        suite: the suite.
        folder: of the run; it is only read.
        settings: how the run is carried out.
        shard: the part of the run; None for the whole.
        price: money that an hour of the machine costs, in any currency; None if it is not known.
        where: name of the suite in error messages.
    """
    with RunProgress(Console(stderr=True, emoji=False)) as bar:
        found = dry_run(suite, folder, settings=settings, shard=shard, where=where, progress=bar)
    part = "" if shard is None else f", shard {shard}"
    say(f"dry run of suite {suite.name}{part}: nothing was computed or written")
    for name, text in lines(found, shard=shard, price=price):
        say(f"  {name:<10} {text}")
    if found.estimate.models:
        print_table(models_table(found), Console())


def lines(found: DryRun, *, shard: Shard | None, price: float | None) -> Iterator[tuple[str, str]]:
    """Yields the names and the values of an estimate."""
    each = found.estimate
    yield "cells", f"{each.cells:,} to compute, {each.reused:,} recorded already"
    yield "passes", f"{number(each.forward)} forward, {number(each.backward)} backward, by example"
    whole = NumberRange.exactly(found.planned) + each.seconds
    workers = f", with {each.workers} worker{'s' * (each.workers > 1)}" if each.workers else ""
    yield "time", f"{duration(whole)} on this machine's {found.device}{workers}"
    if price is not None:
        cost = whole.times(price / HOUR)
        yield "money", f"{money(cost)} at {price:,.15g} an hour"
        # A shard that is done in part says nothing of what the others cost.
        if shard is not None and shard.count > 1 and not each.reused:
            yield "", f"{money(cost.times(shard.count))} for all {shard.count} shards"
    device = f", {size(each.device_memory)} on the device" if each.device_memory else ""
    together = ", with its workers" if each.workers else ""
    yield "memory", f"about {size(each.memory)} at most{together}{device}"
    scratch = f", and up to {size(each.scratch)} while it runs" if each.scratch else ""
    kept = f", and up to {size(each.examples)} of kept examples" if each.examples else ""
    yield "disk", f"about {size(each.disk)}{kept}{scratch}"
    for note in each.notes:
        yield "note", note


def models_table(found: DryRun) -> Table:
    """Returns the times of the models as a table."""
    rows = tuple(
        tuple(
            map(
                TableCell,
                (
                    each.dataset,
                    each.name,
                    f"{each.batch:,}",
                    f"{1000 * each.forward:.3g}",
                    f"{1000 * each.backward:.3g}",
                    duration(each.seconds),
                ),
            )
        )
        for each in found.estimate.models
    )
    columns = (
        Column("dataset", "left"),
        Column("model", "left"),
        Column("batch"),
        Column("forward, ms an example"),
        Column("backward, ms an example"),
        Column("time", "left"),
    )
    return Table("Models", columns, rows)
