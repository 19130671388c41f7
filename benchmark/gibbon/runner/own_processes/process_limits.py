"""Isolation of attacks and models: whether a run uses processes, and their limits.

With ``--isolate`` the whole run is in a process of its own
(`gibbon.runner.own_processes.own_process`), which loads and probes the models, and so are the parts
of it that execute attacks and models: each job, which is one attack on one source, the scoring of
each other model on the candidates, and each examination.  The candidates go from one process to the
next in files of the run's folder, as if the models did not fit into memory together
(`gibbon.runner.execute.scoring_queue`).

A process that exits, crashes or exceeds its limit makes its own cells ``failed``.  A model that
ends the process while it is loaded makes the request wrong, before anything is computed.
"""

from __future__ import annotations

from gibbon.core.errors import SpecError
from gibbon.runner.device.choose_device import choose_device
from gibbon.runner.own_processes.own_process import ProcessLimits, can_fork
from gibbon.runner.settings import RunSettings
from gibbon.specs.suite import Suite

NO_LIMITS = ProcessLimits()


def limits_of(suite: Suite, settings: RunSettings) -> ProcessLimits | None:
    """Returns the limits of the process of a cell; None if cells run in this process.

    Settings take precedence over the suite.  Raises `SpecError` if there are limits without
    isolation.
    """
    isolate = suite.isolate if settings.isolate is None else settings.isolate
    if not isolate:
        for name in ("cell_timeout", "cell_memory"):
            if getattr(settings, name) is not None:
                raise SpecError("limits the process of a cell: it needs isolate", where=name)
        return None
    seconds, memory = settings.cell_timeout, settings.cell_memory
    return ProcessLimits(
        suite.cell_timeout if seconds is None else seconds,
        suite.cell_memory if memory is None else memory,
    )


def check_isolation(settings: RunSettings, *, where: str) -> None:
    """Raises `SpecError` if processes can't be forked here, or not on the device."""
    at = f"{where}: isolate" if where else "isolate"
    if not can_fork():
        raise SpecError("needs processes that are forked, which this system has not", where=at)
    device = choose_device(settings.device)
    if device.type != "cpu":
        raise SpecError(
            f"runs on the CPU alone, as forked processes can't share a device, got {device}: "
            "set device to cpu",
            where=at,
        )
