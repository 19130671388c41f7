"""The Python call: a model, data and an attack in, typed results out.

`evaluate` makes a suite of what it is given and runs it as the command line would: the same
checks, the same numbers, the same tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from rich.console import Console

from gibbon.api.request import (
    AttackLike,
    Budget,
    Data,
    Model,
    Place,
    _Asked,
    _listed,
    _name_of,
    _written,
)
from gibbon.api.results import Results
from gibbon.attacks.base import Attack
from gibbon.core.errors import SpecError
from gibbon.core.threat import Norm
from gibbon.records.outcomes import OUTCOMES, read_outcome
from gibbon.report import write_report
from gibbon.runner.plan.device import choose_device
from gibbon.runner.plan.preprocessing import with_preprocessing
from gibbon.runner.progress import Progress, Silent
from gibbon.runner.progress_bar import RunProgress
from gibbon.runner.run import run_suite
from gibbon.runner.settings import RunSettings
from gibbon.specs.naming import WHERE


def evaluate(
    model: Model | Mapping[str, Model],
    data: Data,
    *,
    attack: AttackLike | Sequence[AttackLike],
    epsilon: Budget | Sequence[Budget] | None = None,
    norm: Norm | Literal["linf", "l2", "l1"] | None = None,
    clip: bool = True,
    transfer: bool = True,
    error_only: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    outputs: Literal["logits", "probabilities", "log-scores"] | None = None,
    seed: int = 0,
    device: torch.device | str = "auto",
    batch_size: int | Literal["auto"] = "auto",
    precision: Literal["float32", "bfloat16"] = "float32",
    compile: bool = False,  # noqa: A002  # as it is called everywhere else
    limit: int | None = None,
    output: Place | None = None,
    progress: Progress | bool = False,
    **parameters: Any,
) -> Results:
    """Returns how a model does on data, as it is and under attack.

    Args:
        model: a torch module, a `Classifier`, a source such as ``"torchvision:resnet50"`` or a
            path, a `ModelSpec`, or several of these by name, among which ``"ensemble:one,two"`` is
            made of those called so.  A module takes inputs of shape (N, *input_shape) in the bounds
            of the data, [0, 1] for pictures.
        data: a torch ``Dataset`` of (input, label), a ``DataLoader`` of batches of these, a pair
            of tensors (inputs, labels), a `Dataset` of ours, a `DatasetSpec`, or a source such as
            ``"mnist"`` or a folder of pictures.
        attack: an attack's name, a mapping such as ``{"name": "pgd", "steps": 20}``, an `Attack`,
            or a list of these.
        epsilon: one or more budgets in the units of the input, such as ``8 / 255``, ``"8/255"`` or
            ``[0.1, 0.25]``; for every attack whose mapping does not say its own.
        norm: of the budget; the attack's own first norm if None.
        clip: whether adversarial examples stay in the bounds of the data.
        transfer: whether several models are scored on each other's adversarial examples.
        error_only: whether errors are all that is asked for: attacks stop at an example's first
            success, which is faster; there is no confidence then, and no transfer.
        mean: with ``std``, the normalisation that goes in front of every model: (x - mean) / std,
            a number a channel.
        std: see ``mean``.
        outputs: what the outputs of a module mean; logits unless it is said.
        seed: of every random number.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``, or a torch device.
        batch_size: examples in one pass; changes no result.
        precision: what the models compute in.
        compile: whether models go through ``torch.compile``.
        limit: take a fixed sample of this many examples.
        output: a folder that keeps what ``run_benchmark.py evaluate`` writes, and in which a call
            that is interrupted goes on; a temporary one otherwise.
        progress: whether to show how far the work is, on stderr; or what is told of it.
        **parameters: the attack's own parameters, such as ``steps=20``, where there is one attack.

    The model comes back as it was, also after an exception: mode, ``requires_grad``, device, hooks.
    Adversarial examples themselves are not kept, only what became of them, example by example
    (`Results.examples`).  An attack or a model that raises while it is measured makes a failed
    cell, which is in `Results.failures` and in the tables; its numbers raise `CellError`.

    Raises a `RequestError` where the request is wrong, before anything is computed.

    >>> inputs, labels = torch.rand(40, 1, 4, 4), torch.arange(40) % 3
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    >>> results = evaluate(net, (inputs, labels), attack="pgd", epsilon=8 / 255, steps=4)
    >>> results.adversarial_error >= results.clean_error
    True
    >>> results.to_frame()[["attack", "epsilon", "examples"]].to_dict("list")
    {'attack': ['none', 'pgd'], 'epsilon': ['0', '8/255'], 'examples': [40, 40]}
    """
    models = model if isinstance(model, Mapping) else {_name_of(model): model}
    asked = _Asked.of(
        {name: _written(each) for name, each in models.items()},
        _written(data),
        [attack] if isinstance(attack, str | Mapping | Attack) else attack,
        budgets=_listed(epsilon),
        parameters=parameters,
        threat={"norm": norm, "clip": clip},
        normalised={"mean": mean, "std": std, "outputs": outputs},
        transfer=transfer,
        error_only=error_only,
        seed=seed,
    )
    choose_device(str(device), where="device")
    if batch_size != "auto" and batch_size < 1:
        raise SpecError(f'must be "auto" or at least 1, got {batch_size}', where="batch_size")
    settings = RunSettings(
        device=str(device),
        batch_size=None if batch_size == "auto" else batch_size,
        precision=precision,
        compile=compile,
        limit=limit,
    )
    suite, supplied = asked.suite, asked.supplied(settings)
    with _folder(output) as folder, _told(progress) as teller:
        if not supplied.datasets:
            suite, notes = with_preprocessing(suite)
            for note in notes:
                teller.note(note)
        record = run_suite(
            suite,
            folder,
            settings=settings,
            where=WHERE,
            supplied=supplied,
            progress=teller,
            publish=write_report if output is not None else None,
        )
        read = {
            row.digest: read_outcome(folder / OUTCOMES, row.digest) for row in record.evaluations
        }
    return Results(record, {digest: found for digest, found in read.items() if found is not None})


@contextmanager
def _folder(output: Place | None) -> Iterator[Path]:
    if output is not None:
        yield Path(output)
        return
    with TemporaryDirectory(prefix="gibbon-") as folder:
        yield Path(folder)


@contextmanager
def _told(progress: Progress | bool) -> Iterator[Progress]:
    if not isinstance(progress, bool):
        yield progress
    elif progress:
        with RunProgress(Console(stderr=True, emoji=False)) as shown:
            yield shown
    else:
        yield Silent()
