"""Stored results survive a round trip, and a damaged one is told."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gibbon.core.errors import RecordError
from gibbon.core.files import write_atomically
from gibbon.core.threat import Epsilon, Norm, Verdict
from gibbon.records.flags import Flag
from gibbon.records.run import RUN_FILE, DatasetCard, Evaluation, Failure, Provenance, RunRecord
from gibbon.specs.decoding import parse_suite

SUITE = parse_suite(
    'name = "x"\ndataset = "mnist"\nmodels = ["rbf"]\n'
    '[[attacks]]\nname = "pgd"\nepsilon = "8/255"\nsteps = 3\n',
    where="x.toml",
)
PROVENANCE = Provenance(
    gibbon="0.1.0",
    commit="abc",
    dirty=None,
    python="3.11",
    libraries={"torch": "2"},
    platform="here",
    device="cpu",
    threads=1,
    batch_size=500,
    limit=None,
    started="2026-01-01T00:00:00+00:00",
)
rates = st.none() | st.floats(0, 1)
counts = st.none() | st.integers(0, 10**6)


@st.composite
def evaluations(draw):
    return Evaluation(
        dataset="mnist",
        model="rbf",
        attack=draw(st.sampled_from(["none", "pgd"])),
        epsilon=Epsilon.parse(draw(st.sampled_from(["0", "0.25", "8/255"]))),
        examples=draw(st.integers(1, 10**6)),
        clean_error=draw(rates),
        adversarial_error=draw(rates),
        misclassified=draw(counts),
        mean_distance=draw(st.none() | st.floats(0, 100)),
        norm=draw(st.none() | st.sampled_from(Norm)),
        clip=draw(st.none() | st.booleans()),
        flags=draw(st.text(max_size=20)),
        status=draw(st.sampled_from(["done", "failed"])),
    )


def record(*rows: Evaluation, **parts) -> RunRecord:
    return RunRecord(suite=SUITE, status="done", provenance=PROVENANCE, evaluations=rows, **parts)


@given(st.lists(evaluations(), max_size=3))
def test_a_record_survives_a_round_trip(rows):
    before = record(*rows)
    after = RunRecord.model_validate_json(before.model_dump_json())
    assert after == before
    assert [str(row.epsilon) for row in after.evaluations] == [str(row.epsilon) for row in rows]


def test_a_record_survives_its_folder(tmp_path):
    failure = Failure(
        dataset="mnist",
        model="rbf",
        attack="pgd",
        epsilon=Epsilon.parse("8/255"),
        error="ValueError: no ε",
        traceback="Traceback …",
    )
    before = record(
        failures=(failure,), flags=(Flag(kind="zero-gradient", sentence="a flag", epsilon="1/4"),)
    )
    before.write(tmp_path)
    assert RunRecord.read(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == [RUN_FILE]


def test_a_record_that_is_not_there_is_told(tmp_path):
    with pytest.raises(RecordError, match=r"run\.json: can't be read: No such file"):
        RunRecord.read(tmp_path)


def test_a_record_cut_short_is_told(tmp_path):
    record().write(tmp_path)
    path = tmp_path / RUN_FILE
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RecordError, match=r"run\.json: damaged: not JSON"):
        RunRecord.read(tmp_path)


@pytest.mark.parametrize(
    ("change", "path"),
    [({"format": 2}, "format"), ({"new": 1}, "new"), ({"status": "odd"}, "status")],
)
def test_a_record_of_another_version_is_told(tmp_path, change, path):
    written = json.loads(record().model_dump_json()) | change
    (tmp_path / RUN_FILE).write_text(json.dumps(written), encoding="utf-8")
    with pytest.raises(RecordError, match=f"not a run of this version of Gibbon: {path}: "):
        RunRecord.read(tmp_path)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_rate_is_a_fraction_of_one(value):
    with pytest.raises(ValidationError):
        Evaluation(
            dataset="d",
            model="m",
            attack="none",
            epsilon=Epsilon.parse(0),
            examples=1,
            clean_error=value,
        )


def test_the_unattacked_row_knows_itself():
    row = Evaluation(dataset="d", model="m", attack="none", epsilon=Epsilon.parse(0), examples=1)
    assert row.unattacked
    assert not row.model_copy(update={"attack": "fgsm"}).unattacked


def test_verdicts_have_stable_numbers():
    assert {each.name: each.value for each in Verdict} == {
        "VALID": 0,
        "NOT_FINITE": 1,
        "OUT_OF_BOUNDS": 2,
        "OUT_OF_BUDGET": 3,
    }  # they are stored in outcome files


def test_a_file_is_written_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "table.md"
    write_atomically(path, "old")
    monkeypatch.setattr(type(path), "replace", lambda self, target: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_atomically(path, "new")
    assert path.read_text(encoding="utf-8") == "old"
    monkeypatch.undo()
    write_atomically(path, b"\x00new")
    assert path.read_bytes() == b"\x00new"


def test_the_card_of_a_dataset_is_found_by_what_the_suite_calls_it() -> None:
    renamed = parse_suite(
        'name = "x"\n[[experiments]]\ndataset = "mnist"\nmodels = ["rbf"]\n'
        '[[experiments]]\ndataset = { name = "again", source = "mnist" }\nmodels = ["softmax"]\n',
        where="x.toml",
    )
    cards = tuple(
        DatasetCard(
            name="mnist", digest=digest, examples=1, of=1, classes=("0", "1"), input_shape=(1,)
        )
        for digest in ("one", "two")
    )
    run = record(datasets=cards).model_copy(update={"suite": renamed})
    assert {name: card.digest for name, card in run.dataset_cards.items()} == {
        "mnist": "one",
        "again": "two",
    }
    assert record().dataset_cards == {}
    cut_short = run.model_copy(update={"datasets": cards[:1]})
    assert cut_short.dataset_cards == {"mnist": cards[0]}
