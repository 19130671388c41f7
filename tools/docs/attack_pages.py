"""Pages about attacks: one for each, from the registry, the docstrings and the pictures."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any

from gibbon.attacks import ATTACKS
from gibbon.attacks.base import SearchMethod
from gibbon.core.errors import SpecError
from gibbon.core.registry import Entry
from tools.docs.site_text import to_markdown

FOLDER = "reference/attacks"
PICTURES = "attack-pictures"


def attack_pages() -> Iterator[tuple[str, str]]:
    """Yields path and markdown of the page of every attack of ours, and of the overview.

    Raises `SpecError` if a docstring says nothing of a parameter, or an attack has no docstring.
    """
    entries = {entry.name: entry for entry in ATTACKS.entries()}
    ours = [entries[name] for name in own_attacks()]
    rows = [
        f"| [`{each.name}`]({each.name}.md) | {each.summary} | {_norms(each)} |" for each in ours
    ]
    head = [
        "# Every attack\n",
        "How to choose, compare and add attacks is in the [guide](../../attacks.md).\n",
        "| attack | description | norms |",
        "| --- | --- | --- |",
    ]
    yield f"{FOLDER}/index.md", "\n".join([*head, *rows]) + "\n"
    for each in ours:
        yield f"{FOLDER}/{each.name}.md", _page(each)


def own_attacks() -> list[str]:
    """Returns the names of the attacks that come with Gibbon."""
    return [entry.name for entry in ATTACKS.entries() if entry.origin == "gibbon"]


def _norms(entry: Entry[Any]) -> str:
    return ", ".join(norm.symbol for norm in entry.load().norms)


def _page(entry: Entry[Any]) -> str:
    kind = entry.load()
    text = inspect.getdoc(inspect.getmodule(kind)) or ""
    own = inspect.getdoc(kind)
    if not text or not own:
        raise SpecError(f"{entry.name}: its module or its class has no docstring")
    unknown = kind.search_method is SearchMethod.UNKNOWN
    search = "that of several attacks" if unknown else kind.search_method.value
    name = entry.name
    norm = kind.norms[0].value
    budget = {"linf": "8/255", "l2": "0.5", "l1": "12"}[norm]
    return f"""# {name}

{to_markdown(own.partition(chr(10) * 2)[0])}

![A digit, what {name} adds to it (scaled), and their sum](../../{PICTURES}/{name}.png)

*A digit of MNIST, what `{name}` adds to it (scaled; grey is no change), and their sum, made on
`maxout`.*

| | |
| --- | --- |
| norms | {_norms(entry)} |
| search | {search} |
| uses gradients | {"yes" if kind.needs_gradient else "no"} |

```toml
[[attacks]]
name = "{name}"
epsilon = "{budget}"
{f'norm = "{norm}"' if len(kind.norms) > 1 else ""}
```

## Parameters

{_parameters(kind)}

## Algorithm and paper

{_algorithm(text)}
"""


def _algorithm(text: str) -> str:
    """Returns the docstring of an attack's module, without its headings."""
    return to_markdown(re.sub(r"^Sources?: ", "**Source.** ", text, flags=re.MULTILINE))


def _parameters(kind: type[Any]) -> str:
    fields = dataclasses.fields(kind)
    if not fields:
        return "It has none."
    lines = ["| parameter | default | description |", "| --- | --- | --- |"]
    for field in fields:
        said = to_markdown(described_parameter(kind, field.name)).replace("|", "\\|")
        lines.append(f"| `{field.name}` | {_default(field)} | {said} |")
    return "\n".join(lines)


def described_parameter(kind: type[Any], name: str) -> str:
    """Returns what the docstring of an attack says of a parameter; `SpecError` if nothing."""
    for each in kind.__mro__:
        entries = re.finditer(
            r"^ {4}(\w[\w, ]*): (.*?)(?=^ {4}\w|^\S|\Z)",
            inspect.cleandoc(each.__doc__ or ""),
            re.MULTILINE | re.DOTALL,
        )
        for entry in entries:
            if name in entry[1].replace(" ", "").split(","):
                return re.sub(r"\s+", " ", entry[2]).strip()
    raise SpecError(f"{kind.__name__}: its docstring says nothing of the parameter {name!r}")


def _default(field: dataclasses.Field[Any]) -> str:
    given = getattr(field.default, "default", field.default)
    if given is dataclasses.MISSING or repr(given) == "PydanticUndefined":
        made = field.default_factory
        made = getattr(field.default, "default_factory", None) or made
        return f"`{made()}`" if callable(made) and made is not dataclasses.MISSING else "required"
    if given is None:
        return "by rule"
    return f"`{str(given).lower()}`" if isinstance(given, bool) else f"`{given}`"
