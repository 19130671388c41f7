"""What was asked for in words, as a suite: names for it and for the attacks in it."""

from __future__ import annotations

from collections.abc import Sequence

LONGEST_NAME = 80


def suite_name(dataset: str, models: Sequence[str]) -> str:
    """Returns what a suite is called that nobody named: its dataset and its models.

    >>> suite_name("mnist", ["softmax", "maxout"])
    'mnist-softmax+maxout'
    """
    return f"{dataset}-{'+'.join(models)}"[:LONGEST_NAME]


def unlike(names: Sequence[str], *, taken: Sequence[str] = ()) -> list[str]:
    """Returns names that are all different: what comes again gets a number.

    ``taken`` are names that may not be used besides.

    >>> unlike(["pgd", "fgsm", "pgd", "pgd-2"])
    ['pgd', 'fgsm', 'pgd-3', 'pgd-2']
    """
    reserved = {*names, *taken}
    used: set[str] = set(taken)
    found = []
    for name in names:
        number, new = 2, name
        while new in used or (new != name and new in reserved):
            new, number = f"{name}-{number}", number + 1
        used.add(new)
        found.append(new)
    return found
