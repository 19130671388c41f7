"""The pages about kinds of flags as blocks that a template of the page prints.

The pages are markdown of a simple kind: headings, paragraphs, lists, blocks of code, and `code`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from gibbon.records.flag_kinds import flag_page

_LINK = re.compile(r"\[([^\]]*)\]\(([^)]*)\)|<(https?://[^>]*)>")
_ITEM = re.compile(r"(?:[-*]|\d+\.) +")


@dataclass(frozen=True)
class Block:
    """A heading, a paragraph, a list or a block of code; ``lines`` are its items or its lines."""

    tag: Literal["heading", "paragraph", "list", "code"]
    lines: tuple[str, ...]


@dataclass(frozen=True)
class KindPage:
    """The page about a kind of flag: its title and its blocks."""

    kind: str
    title: str
    blocks: tuple[Block, ...]


def kind_page(kind: str) -> KindPage:
    """Returns the page about a kind of flag."""
    first, _, rest = flag_page(kind).partition("\n")
    return KindPage(kind, first.lstrip("# "), tuple(blocks(rest)))


def blocks(text: str) -> Iterator[Block]:
    r"""Yields the blocks of a markdown text.

    >>> [each.tag for each in blocks("## Why\nBecause\nof this.\n\n- one\n  more\n- two")]
    ['heading', 'paragraph', 'list']
    """
    lines = iter(text.splitlines())
    paragraph: list[str] = []
    for line in lines:
        fence = re.match(r" *(`{3,})", line)
        if paragraph and (fence or not line.strip() or line.startswith("#")):
            yield _prose(paragraph)
            paragraph = []
        if fence:
            code = []
            for inner in lines:
                if inner.strip() == fence[1]:
                    break
                code.append(inner)
            yield Block("code", tuple(code))
        elif line.startswith("#"):
            yield Block("heading", (_plain(line.lstrip("# ")),))
        elif line.strip():
            if _ITEM.match(line) and paragraph and not _ITEM.match(paragraph[0]):
                yield _prose(paragraph)
                paragraph = []
            paragraph.append(line)
    if paragraph:
        yield _prose(paragraph)


def _prose(lines: list[str]) -> Block:
    if not _ITEM.match(lines[0]):
        return Block("paragraph", (_plain(" ".join(lines)),))
    items: list[str] = []
    for line in lines:
        if _ITEM.match(line):
            items.append(_ITEM.sub("", line, count=1))
        else:
            items[-1] += f" {line.strip()}"
    return Block("list", tuple(map(_plain, items)))


def _plain(text: str) -> str:
    """Returns a text with the addresses of links in brackets, and without emphasis."""
    linked = _LINK.sub(lambda link: link[3] or f"{link[1]} ({link[2]})", text)
    return re.sub(r"\*\*(.+?)\*\*", r"\1", linked)
