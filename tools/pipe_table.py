"""Tables of texts in markdown, as the pages have them."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate


def pipe_table(rows: Sequence[Sequence[str]], headers: Sequence[str], *, left: int = 1) -> str:
    """Returns a table whose cells stay as they are written.

    Args:
        rows: texts of the cells.
        headers: one for each column.
        left: number of columns that are aligned to the left, from the first; the others are to the
            right.

    >>> print(pipe_table([["one", "1.50"]], ["name", "size"]))
    | name   |   size |
    |:-------|-------:|
    | one    |   1.50 |
    """
    table: str = tabulate(
        rows,
        headers=headers,
        tablefmt="pipe",
        disable_numparse=True,
        colalign=["left"] * left + ["right"] * (len(headers) - left),
    )
    return table
