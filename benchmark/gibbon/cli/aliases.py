"""Other spellings of options that people type: ``--eps``, ``--batch_size``, ``--batchsize``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

SYNONYMS: Final = {
    "--eps": "--epsilon",
    "--epsilons": "--epsilon",
    "--bs": "--batch-size",
    "--batch": "--batch-size",
    "--checkpoint": "--weights",
    "--ckpt": "--weights",
    "--weight": "--weights",
    "--data": "--dataset",
    "--datasets": "--dataset",
    "--data-path": "--dataset",
    "--attacks": "--attack",
    "--models": "--model",
    "--norms": "--norm",
    "--n-examples": "--limit",
    "--num-examples": "--limit",
    "--max-examples": "--limit",
    "--num-samples": "--limit",
    "--out": "--output",
    "--out-dir": "--output",
    "--output-dir": "--output",
    "--num-workers": "--workers",
    "--data-root": "--data-dir",
    "--no-clipping": "--no-clip",
}


def known_spelling(flag: str, known: Iterable[str]) -> str:
    """Returns the option that a flag is another spelling of, or the flag itself.

    Underscores are hyphens, hyphens may be left out, the case of letters does not matter.

    >>> known = ["--batch-size", "--epsilon", "--limit"]
    >>> [known_spelling(each, known) for each in ("--batch_size", "--batchsize", "--eps", "--x")]
    ['--batch-size', '--batch-size', '--epsilon', '--x']
    """
    options = list(known)
    if flag in options or not flag.startswith("--"):
        return flag
    squeezed = {_squeezed(each): each for each in options}
    synonyms = {_squeezed(each): other for each, other in SYNONYMS.items() if other in options}
    place = _squeezed(flag)
    return squeezed.get(place) or synonyms.get(place) or flag


def _squeezed(flag: str) -> str:
    return re.sub(r"[-_]", "", flag.lower())
