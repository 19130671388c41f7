"""Pages about suites: one for each key, from the schema and the docstrings of the specs."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gibbon.core.errors import SpecError
from gibbon.specs.base import Spec
from gibbon.specs.claims import Claim, MeasuredQuantity
from gibbon.specs.published import PublishedRow
from gibbon.specs.suite import (
    AttackSpec,
    DatasetSpec,
    Experiment,
    FoolingSpec,
    ModelSpec,
    Suite,
    TransferSpec,
)
from tools.docs.site_text import to_markdown
from tools.docs.suite_examples import example

FOLDER = "reference/suite"


@dataclass(frozen=True)
class SuiteTable:
    """A table of a suite: its folder among the pages, its place in a file, and its class."""

    name: str
    place: str
    spec: type[Spec]


TABLES = (
    SuiteTable("suite", "the top of the file", Suite),
    SuiteTable("experiment", "`[[experiments]]`, or the top of the file", Experiment),
    SuiteTable("dataset", "`dataset = { ... }`", DatasetSpec),
    SuiteTable("model", "`models = [{ ... }]`", ModelSpec),
    SuiteTable("attack", "`[[attacks]]`", AttackSpec),
    SuiteTable("transfer", "`[transfer]`", TransferSpec),
    SuiteTable("fooling", "`fooling = { ... }`", FoolingSpec),
    SuiteTable("published", "`[[published]]`", PublishedRow),
    SuiteTable("claim", "`[[claims]]`", Claim),
    SuiteTable("measure", "`first = { ... }` and `second = { ... }` of a claim", MeasuredQuantity),
)
_BY_CLASS = {table.spec.__name__: table for table in TABLES}
_JSON_WORDS = {
    "string": "a text",
    "integer": "an integer",
    "number": "a number",
    "boolean": "`true` or `false`",
    "object": "a table",
    "array": "a list",
}


def suite_pages() -> Iterator[tuple[str, str]]:
    """Yields path and markdown of the page of every key, and of the overview.

    Raises `SpecError` if the docstring of a spec does not describe one of its keys.
    """
    yield f"{FOLDER}/index.md", _overview()
    for table in TABLES:
        for key in table.spec.model_fields:
            yield page_path(table, key), _page(table, key)


def page_path(table: SuiteTable, key: str) -> str:
    """Returns the path of a key's page below ``docs/``."""
    return f"{FOLDER}/{table.name}-{key.replace('_', '-')}.md"


def described(spec: type[Spec], key: str) -> str:
    """Returns the description of a key: its argument, else the sentences that name it.

    Raises `SpecError` if there is none.
    """
    text = inspect.getdoc(spec) or ""
    entries = re.finditer(
        r"^ {4}(\w[\w, ]*): (.*?)(?=^ {4}\w|^\S|\Z)", text, re.MULTILINE | re.DOTALL
    )
    for entry in entries:
        if key in entry[1].replace(" ", "").split(","):
            return _one_line(entry[2])
    rest = text.partition("Args:")[2] if "Args:" in text else text
    prose = re.sub(r"^ {4,}.*$", "", rest, flags=re.MULTILINE) + text.partition("Args:")[0]
    sentences = re.split(r"(?<=[.;:])\s+(?=[A-Z`])", _one_line(prose))
    found = dict.fromkeys(each for each in sentences if f"``{key}``" in each)
    if not found:
        raise SpecError(f"{spec.__name__}: its docstring says nothing of the key {key!r}")
    return " ".join(found)


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def kind(schema: Mapping[str, Any]) -> str:
    """Returns the type of a key as words, from its JSON schema.

    >>> kind({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]})
    'an integer, at least 1'
    >>> kind({"enum": ["linf", "l2"], "type": "string"})
    '`"linf"` or `"l2"`'
    """
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        table = _BY_CLASS.get(name)
        return f"a table ([{table.name}](index.md#{table.name}))" if table else "a text"
    if "anyOf" in schema:
        words = [kind(each) for each in schema["anyOf"] if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(words))
    if "enum" in schema:
        return " or ".join(f'`"{each}"`' for each in schema["enum"])
    if "const" in schema:
        return f'`"{schema["const"]}"`'
    if schema.get("type") == "array":
        inside = schema.get("items") or next(iter(schema.get("prefixItems", [])), None)
        return f"a list: {kind(inside)} each" if inside else "a list"
    word = _JSON_WORDS.get(str(schema.get("type")), "a number or a fraction as a text")
    limits = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    return ", ".join(
        [word, *(f"{said} {schema[key]}" for key, said in limits.items() if key in schema)]
    )


def _default(spec: type[Spec], key: str) -> str:
    field = spec.model_fields[key]
    if field.is_required():
        return (
            "none: the key is required" if (spec, key) != (Experiment, "attacks") else "no attack"
        )
    value = field.get_default(call_default_factory=True)
    if value is None or value in ("", (), {}):
        return "not set"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{', '.join(map(str, value)) if isinstance(value, tuple) else value}`"


def _properties(spec: type[Spec]) -> Mapping[str, Any]:
    schema = spec.model_json_schema()
    own = schema if "properties" in schema else schema["$defs"][spec.__name__]  # it is recursive
    found: Mapping[str, Any] = own["properties"]
    return found


def _page(table: SuiteTable, key: str) -> str:
    schema = _properties(table.spec).get(key, {})
    text = to_markdown(described(table.spec, key))
    shown = example(table.name, key)
    return f"""# {key}

{text[0].upper()}{text[1:]}

| | |
| --- | --- |
| key | `{key}` |
| place | {table.place} ([{table.name}](index.md#{table.name})) |
| value | {kind(schema)} |
| default | {_default(table.spec, key)} |

```toml
{shown.strip()}
```

A key with another name, or a value of another type, is refused before anything is computed, with
its place in the file and the nearest valid name.
"""


def _overview() -> str:
    parts = [
        "# Keys of a suite\n",
        "A suite is a TOML file. `gibbon run FILE` checks all of it before anything is computed; "
        "[commands and suites](../../commands.md) shows a whole one.\n",
    ]
    for table in TABLES:
        summary = to_markdown((inspect.getdoc(table.spec) or "").partition("\n\n")[0])
        parts += [f"\n## {table.name}\n", f"{summary} Written at {table.place}.\n"]
        parts += ["| key | description |", "| --- | --- |"]
        for key in table.spec.model_fields:
            path = page_path(table, key).rpartition("/")[2]
            text = to_markdown(described(table.spec, key)).replace("|", "\\|")
            parts.append(f"| [`{key}`]({path}) | {text} |")
    return "\n".join(parts) + "\n"
