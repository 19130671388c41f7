"""Mutations of files by format: what they hold is changed, and they are sealed again.

A file whose checksum does not match is refused before anything else is read of it.  Most mutants
therefore get the checksum of what they hold now, as a hostile file would.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import tomllib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tomli_w

from gibbon.gate.baseline import KIND
from gibbon.records.checksums import CHECKSUM, parquet_bytes, with_checksum
from tools.fuzz.mutated_trees import NUMBERS, mutated
from tools.fuzz.seals import sealed_baseline, sealed_parquet

RAW = 0.2  # share of the mutations that change bytes, whatever the format
BROKEN = 0.1  # share of the mutants whose checksum is left as it was
LONGEST = 200_000  # bytes of a mutant that is mutated further

Mutate = Callable[[bytes, Random, Sequence[bytes]], bytes]

_BYTES = (
    b"\0",
    b"\xff",
    b"\x80",
    b"\n",
    b"\r",
    b'"',
    b"'",
    b",",
    b"{",
    b"[",
    b"9" * 20,
    b"\xef\xbb\xbf",
)
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")


def mutated_file(name: str, content: bytes, random: Random, *, spare: Mapping[str, bytes]) -> bytes:
    """Returns the content of a file with one change.

    Args:
        name: its path, whose suffix is its format.
        content: its content.
        random: source of the choice.
        spare: other files of the corpus, by path; parts of those of this format may be taken.
    """
    suffix = PurePath(name).suffix
    alike = [each for path, each in spare.items() if PurePath(path).suffix == suffix]
    if suffix in _FORMATS and random.random() >= RAW and len(content) <= LONGEST:
        # What is no file of its format any more, or can't be written in it, is changed as bytes.
        with contextlib.suppress(Exception):
            return _FORMATS[suffix](content, random, alike)
    return mutated_bytes(content, random, alike)


def mutated_bytes(content: bytes, random: Random, alike: Sequence[bytes] = ()) -> bytes:
    """Returns bytes with one change.

    >>> mutated_bytes(b"", Random(0))
    b''
    """
    if not content:
        return content
    at = random.randrange(len(content))
    end = min(len(content), at + random.choice((1, 1, 4, 16, 200)))
    match random.randrange(8):
        case 0:
            flipped = bytes([content[at] ^ (1 << random.randrange(8))])
            return content[:at] + flipped + content[at + 1 :]
        case 1:
            return content[:at] + content[end:]
        case 2:
            return content[:at] + content[at:end] * random.choice((2, 3, 100)) + content[end:]
        case 3:
            return content[:at] + random.choice(_BYTES) + content[end:]
        case 4:
            return content[:at]
        case 5:
            other = random.choice(alike) if alike else content
            start = random.randrange(len(other) + 1)
            return content[:at] + other[start : start + 200] + content[end:]
        case 6:
            lines = content.splitlines(keepends=True)
            one, two = random.randrange(len(lines)), random.randrange(len(lines))
            lines[one], lines[two] = lines[two], lines[one]
            return b"".join(lines)
        case _:
            found = list(_NUMBER.finditer(content))
            if not found:
                return content[:at]
            place = random.choice(found)
            number = str(random.choice(NUMBERS)).encode()
            return content[: place.start()] + number + content[place.end() :]


def _toml(content: bytes, random: Random, alike: Sequence[bytes]) -> bytes:
    tree = mutated(tomllib.loads(content.decode()), random, spare=_decoded(alike, _toml_of, random))
    return tomli_w.dumps(_without_none(tree)).encode()


def _toml_of(content: bytes) -> Any:
    return tomllib.loads(content.decode())


def _without_none(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {str(key): _without_none(each) for key, each in tree.items()}
    if isinstance(tree, list):
        return [_without_none(each) for each in tree]
    return "" if tree is None else tree


def _json(content: bytes, random: Random, alike: Sequence[bytes]) -> bytes:
    tree = json.loads(content)
    was_sealed = isinstance(tree, dict) and CHECKSUM in tree
    before = tree.pop(CHECKSUM) if was_sealed else None
    tree = mutated(tree, random, spare=_decoded(alike, json.loads, random))
    if not was_sealed or not isinstance(tree, dict) or not tree:
        return json.dumps(tree, default=str).encode()
    if random.random() < BROKEN:
        return json.dumps({**tree, CHECKSUM: before}, default=str).encode()
    tree = json.loads(json.dumps(tree, default=str))
    if tree.get("kind") == KIND:
        tree = sealed_baseline(tree)
    return with_checksum(json.dumps(tree, indent=1)).encode()


def _csv(content: bytes, random: Random, alike: Sequence[bytes]) -> bytes:
    rows = mutated(_csv_of(content), random, spare=_decoded(alike, _csv_of, random))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator=random.choice(("\n", "\r\n")))
    for row in rows:
        writer.writerow(row if isinstance(row, list) else [row])
    return stream.getvalue().encode()


def _csv_of(content: bytes) -> list[list[str]]:
    return list(csv.reader(content.decode("utf-8-sig").splitlines()))


def _decoded(alike: Sequence[bytes], decode: Callable[[bytes], Any], random: Random) -> list[Any]:
    """Returns one other file of a format, decoded."""
    found = []
    for each in random.sample(list(alike), min(1, len(alike))):
        with contextlib.suppress(Exception):
            found.append(decode(each))
    return found


def _parquet(content: bytes, random: Random, _: Sequence[bytes]) -> bytes:
    if random.random() < 0.2:
        return sealed_parquet(mutated_bytes(content, random))
    table = pq.read_table(pa.BufferReader(content))
    metadata = {
        key: value for key, value in (table.schema.metadata or {}).items() if b"checksum" not in key
    }
    if metadata and random.random() < 0.3:
        key = random.choice(list(metadata))
        metadata[key] = _json(metadata[key], random, [])
    else:
        table = _mutated_table(table, random)
    return parquet_bytes(table.replace_schema_metadata(metadata))


def _mutated_table(table: pa.Table, random: Random) -> pa.Table:
    at = random.randrange(max(1, table.num_columns))
    if not table.num_columns:
        return table
    name, column = table.column_names[at], table.column(at)
    count = table.num_rows
    match random.randrange(8):
        case 0:
            return table.remove_column(at)
        case 1:
            other = random.choice((*table.column_names, "x", ""))
            names = [
                other if place == at else each for place, each in enumerate(table.column_names)
            ]
            return table.rename_columns(names)
        case 2:
            kinds = (pa.int8(), pa.int64(), pa.float64(), pa.string(), pa.bool_(), pa.float16())
            return table.set_column(at, name, column.cast(random.choice(kinds), safe=False))
        case 3:
            kept = [row if random.random() < 0.7 else None for row in column.to_pylist()]
            return table.set_column(at, name, pa.array(kept, column.type))
        case 4:
            return table.slice(random.randrange(count + 1), random.randrange(count + 1))
        case 5:
            return table.take(random.sample(range(count), count))
        case 6:
            return table.take([random.randrange(count) for _ in range(count + 1)])
        case _:
            rows = column.to_pylist()
            rows[random.randrange(count)] = random.choice((*NUMBERS, "x", None))
            return table.set_column(at, name, pa.array(rows))


def _npz(content: bytes, random: Random, alike: Sequence[bytes]) -> bytes:
    if random.random() < 0.4:
        return _zip(content, random, alike)
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    name = random.choice(list(arrays))
    if name == "about" and random.random() < 0.7:
        about = mutated(json.loads(arrays[name].tobytes()), random, spare=())
        arrays[name] = np.frombuffer(json.dumps(about, default=str).encode(), dtype=np.uint8)
    else:
        arrays |= _mutated_array(name, arrays[name], random)
        if random.random() < 0.1:
            del arrays[name]
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def _mutated_array(name: str, array: Any, random: Random) -> dict[str, Any]:
    match random.randrange(6):
        case 0:
            kinds = ("u1", "i1", "i4", "f2", "f8", "U3", "c8", "?", "M8[s]", ">f4", "V3")
            return {name: np.zeros(array.shape, dtype=random.choice(kinds))}
        case 1:
            return {name: array[: random.randrange(1 + len(array))] if array.ndim else array}
        case 2:
            return {name: array.reshape(-1) if random.random() < 0.5 else array[None]}
        case 3:
            return {name + random.choice(("x", "/../x", "é")): array}
        case 4:
            return {name: np.broadcast_to(array, (random.choice((0, 2, 50)), *array.shape))}
        case _:
            filled = array.copy()
            filled.reshape(-1)[random.randrange(max(1, filled.size))] = random.choice((0, 1, 200))
            return {name: filled}


def _npy(content: bytes, random: Random, _: Sequence[bytes]) -> bytes:
    array = np.load(io.BytesIO(content), allow_pickle=False)
    (array,) = _mutated_array("a", array, random).values()
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _zip(content: bytes, random: Random, _: Sequence[bytes]) -> bytes:
    """Changes the bytes of a member, so that its checksum fits what it holds."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {each.filename: archive.read(each) for each in archive.infolist()}
    name = random.choice(list(members))
    match random.randrange(4):
        case 0:
            members[random.choice((name + "x", "../x", "/x"))] = members.pop(name)
        case 1:
            del members[name]
        case _:
            members[name] = mutated_bytes(members[name], random)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path, each in members.items():
            archive.writestr(path, each)
    return stream.getvalue()


def _safetensors(content: bytes, random: Random, _: Sequence[bytes]) -> bytes:
    size = int.from_bytes(content[:8], "little")
    header = mutated(json.loads(content[8 : 8 + size]), random, spare=())
    written = json.dumps(header, default=str).encode()
    return len(written).to_bytes(8, "little") + written + content[8 + size :]


_FORMATS: dict[str, Mutate] = {
    ".toml": _toml,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
    ".npz": _npz,
    ".npy": _npy,
    ".pt": _zip,
    ".safetensors": _safetensors,
}
