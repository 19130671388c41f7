"""The viewer of single examples: its filters against a slow reference, its answers, its server."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from PIL import Image

from gibbon.core.errors import SpecError
from gibbon.core.threat import Epsilon, Norm, Verdict
from gibbon.records.kept_examples import KeptExamples, clean_folder
from gibbon.records.outcomes import (
    OUTCOMES,
    Outcome,
    OutcomeMeta,
    TargetOutcome,
    outcome_table,
    write_table,
)
from gibbon.records.run import DatasetCard, Evaluation, ModelCard, RunRecord
from gibbon.report.viewer import answers_json
from gibbon.report.viewer import examples as viewer_examples
from gibbon.report.viewer.answers_json import example_values, page_values, run_values
from gibbon.report.viewer.examples import PAGE, RunExamples, agreeing, find, parse_filters
from gibbon.report.viewer.inputs import InputStore, display_of, numbers
from gibbon.report.viewer.server import HOST, ViewerServer
from gibbon.specs.decoding import decode_suite
from tests.made_up import NOWHERE

COUNT, CLASSES = 60, ("cat", "<b>dog</b>", "owl")
MODELS = ("net", "other", "third")
IDS = np.arange(COUNT, dtype=np.int64) * 3 + 5
LABELS = np.arange(COUNT, dtype=np.int32) % 3


def outcome_of(
    digest: str, predicted: dict[str, Any], *, seed: int, clean: bool = False
) -> Outcome:
    random = np.random.default_rng(seed)
    verdict = np.full(COUNT, Verdict.VALID, dtype=np.int8)
    if not clean:
        verdict[3] = next(each for each in Verdict if each != Verdict.VALID)
    return Outcome(
        example_id=IDS,
        label=LABELS,
        verdict=verdict,
        distance=np.zeros(COUNT, np.float32) if clean else random.random(COUNT, dtype=np.float32),
        any_misclassified=next(iter(predicted.values())) != LABELS,
        saturated=None,
        zero_gradient=None,
        scores={
            f"digest-{name}": TargetOutcome(
                given.astype(np.int32), random.random(COUNT, dtype=np.float32)
            )
            for name, given in predicted.items()
        },
        meta=OutcomeMeta(digest=digest, targets={f"digest-{name}": name for name in predicted}),
    )


def made_run(
    folder: Path, *, shape: tuple[int, ...] = (1, 4, 4), transfer: bool = True
) -> RunExamples:
    """Writes a run of three models under one attack, all examples of the first one kept."""
    written = {
        "name": "shown",
        "title": "<script>alert(1)</script>",
        "dataset": "data",
        "models": list(MODELS),
        "attacks": [{"name": "fgsm", "epsilon": ["0.1", "0.2"]}],
    }
    random = np.random.default_rng(0)
    rows = []
    for place, model in enumerate(MODELS):
        for attack, epsilon in (("none", "0"), ("fgsm", "0.1"), ("fgsm", "0.2")):
            digest = f"{model}-{attack}-{epsilon}".replace(".", "-")
            clean = attack == "none"
            names = MODELS if transfer and not clean else (model,)
            names = (model, *(each for each in names if each != model))
            given = {name: random.integers(0, 3, COUNT) for name in names}
            found = outcome_of(digest, given, seed=place, clean=clean)
            write_table(outcome_table(found), folder / OUTCOMES / f"{digest}.parquet")
            rows.append(
                Evaluation(
                    dataset="data",
                    model=model,
                    attack=attack,
                    epsilon=Epsilon.parse(epsilon),
                    examples=COUNT,
                    digest=digest,
                    norm=None if clean else Norm.LINF,
                )
            )
    record = RunRecord(
        suite=decode_suite(written, where="shown.toml"),
        status="done",
        provenance=NOWHERE,
        models=tuple(
            ModelCard(
                name=name, model=name, weights_digest="", digest=f"digest-{name}",
                outputs="logits", classes=3, parameters=1,
            )
            for name in MODELS
        ),
        datasets=(
            DatasetCard(
                name="data", digest="data-digest", examples=COUNT, of=COUNT, classes=CLASSES,
                input_shape=shape,
            ),
        ),
        evaluations=tuple(rows),
    )  # fmt: skip
    record.write(folder)
    clean_inputs = random.random((COUNT, *shape), dtype=np.float32)
    change = np.sign(random.standard_normal((COUNT, *shape))).astype(np.float32) * np.float32(0.1)
    KeptExamples(folder, clean_folder("data-digest")).write(IDS, clean_inputs)
    KeptExamples(folder, "net-fgsm-0-1").write(IDS[:30], (clean_inputs + change)[:30])
    return RunExamples(record, folder)


@pytest.fixture
def examples(tmp_path: Path) -> RunExamples:
    return made_run(tmp_path)


WRITTEN = [
    {},
    {"outcome": "fooled", "class": "1"},
    {"outcome": "withstood", "low": "0.25", "high": "0.75"},
    {"outcome": "clean-mistake", "given": "2", "order": "farthest"},
    {"outcome": "invalid"},
    {"agreement": "same-class", "order": "most-confident"},
    {"agreement": "all-wrong", "outcome": "misclassified"},
    {"agreement": "different", "model": "third", "epsilon": "0.1"},
    {"agreement": "all-right", "order": "nearest"},
    {"agreement": "some-wrong", "attack": "none"},
]


def slowly(examples: RunExamples, written: dict[str, str]) -> list[int]:
    """Returns the ids that filters select, example by example."""
    question = parse_filters(written, examples)
    outcome = examples.outcome(examples.cell(question))
    clean = examples.unattacked("data", question.model)
    assert outcome is not None
    assert clean is not None
    digest, compared = f"digest-{question.model}", examples.compared(question)
    found = []
    for at in range(COUNT):
        label, valid = int(LABELS[at]), outcome.verdict[at] == Verdict.VALID
        given = int(outcome.scores[digest].predicted[at])
        sure = float(outcome.scores[digest].confidence[at])
        wrong, mistake = given != label and valid, int(clean.scores[digest].predicted[at]) != label
        answers = [(int(each.predicted[at]), bool(each.wrong[at])) for each in compared.values()]
        mistaken = [answer for answer, is_wrong in answers if is_wrong]
        keep = {
            "all": True,
            "fooled": wrong and not mistake,
            "misclassified": wrong,
            "withstood": not wrong,
            "clean-mistake": mistake,
            "invalid": not valid,
        }[question.which] and {
            "any": True,
            "all-right": not mistaken,
            "some-wrong": 0 < len(mistaken) < len(answers),
            "all-wrong": len(mistaken) == len(answers),
            "same-class": len(mistaken) >= 2 and len(set(mistaken)) == 1,
            "different": len({answer for answer, _ in answers}) > 1,
        }[question.agreement]
        keep = keep and question.label in (None, label) and question.given in (None, given)
        if keep and question.low <= sure <= question.high:
            key = {"most-confident": -sure, "nearest": float(outcome.distance[at])}
            key["farthest"] = -float(outcome.distance[at])
            found.append((key.get(question.order, 0.0), int(IDS[at])))
    return [each for _, each in sorted(found)]


@pytest.mark.parametrize("written", WRITTEN)
def test_filters_select_what_a_slow_look_at_each_example_selects(
    examples: RunExamples, written: dict[str, str]
) -> None:
    found = find(examples, parse_filters(written, examples))
    assert found is not None
    assert found.outcome.example_id[found.rows].tolist() == slowly(examples, written)


def test_without_transfer_agreement_is_about_each_models_own_examples(tmp_path: Path) -> None:
    examples = made_run(tmp_path, transfer=False)
    question = parse_filters({"agreement": "all-wrong"}, examples)
    assert list(examples.compared(question)) == list(MODELS)
    found = find(examples, question)
    assert found is not None
    assert found.outcome.example_id[found.rows].tolist() == slowly(
        examples, {"agreement": "all-wrong"}
    )
    assert not agreeing("all-right", {}, 3).any()


def test_pages_and_neighbours_go_through_all_selected_examples(examples: RunExamples) -> None:
    inputs = InputStore(examples.folder)
    first = page_values(examples, inputs, {"outcome": "misclassified"})
    ids = slowly(examples, {"outcome": "misclassified"})
    seen = [
        row["id"]
        for number in range(first["pages"])
        for row in page_values(examples, inputs, {"outcome": "misclassified", "page": str(number)})[
            "rows"
        ]
    ]
    assert seen == ids
    assert len(first["rows"]) == min(PAGE, len(ids))
    place = len(ids) - 2
    values = example_values(
        examples, inputs, {"outcome": "misclassified", "example": str(ids[place])}
    )
    assert (values["previous"], values["next"]) == (ids[place - 1], ids[place + 1])
    assert values["place"] == place + 1
    # A link to an example leads to its page.
    linked = page_values(examples, inputs, {"outcome": "misclassified", "example": str(ids[place])})
    assert ids[place] in [row["id"] for row in linked["rows"]]


def test_a_link_to_the_example_of_number_0_leads_to_its_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "IDS", IDS - IDS[0])
    for module in (answers_json, viewer_examples):
        monkeypatch.setattr(module, "PAGE", 1)
    examples = made_run(tmp_path)
    written = {"order": "most-confident", "example": "0"}
    place = find(examples, parse_filters(written, examples)).place(0)
    assert place
    assert page_values(examples, InputStore(examples.folder), written)["page"] == place


def test_one_example_has_the_answers_of_all_models(examples: RunExamples) -> None:
    values = example_values(
        examples, InputStore(examples.folder), {"example": "5", "epsilon": "0.1"}
    )
    assert [each["model"] for each in values["answers"]] == list(MODELS)
    outcome = examples.outcome(examples.cell(parse_filters({"epsilon": "0.1"}, examples)))
    assert outcome is not None
    for each in values["answers"]:
        given = int(outcome.scores[f"digest-{each['model']}"].predicted[0])
        assert each["this"]["label"] == CLASSES[given]
        assert each["this"]["wrong"] == (given != 0)
    assert (values["picture"], values["scale"]) == (True, "0.1")
    assert json.loads(json.dumps(run_values(examples)))["datasets"][0]["classes"] == list(CLASSES)


def test_without_kept_examples_it_says_how_to_keep_them(examples: RunExamples) -> None:
    inputs = InputStore(examples.folder)
    page = page_values(examples, inputs, {"epsilon": "0.2"})
    assert "--keep-examples" in page["missing"]
    assert not any(row["stored"] for row in page["rows"])
    values = example_values(examples, inputs, {"epsilon": "0.2", "example": "5"})
    assert "--keep-examples" in values["missing"]
    assert values["answers"][0]["clean"] is not None
    (examples.folder / OUTCOMES / "net-fgsm-0-2.parquet").unlink()
    lost = page_values(RunExamples(examples.record, examples.folder), inputs, {"epsilon": "0.2"})
    assert "missing" in lost["missing"]


@pytest.mark.parametrize(
    ("shape", "display"),
    [
        ((3, 8, 8), "picture"),
        ((1, 300), "signal"),
        ((2, 500), "signal"),
        ((6,), "values"),
        ((5, 40), "values"),
    ],
)
def test_every_kind_of_input_is_shown(tmp_path: Path, shape: tuple[int, ...], display: str) -> None:
    assert display_of(shape) == display
    examples = made_run(tmp_path, shape=shape)
    inputs = InputStore(tmp_path)
    row = examples.cell(parse_filters({"epsilon": "0.1"}, examples))
    shown = inputs.find(row, examples.card("data"), 5)
    assert shown is not None
    assert shown.scale == pytest.approx(0.1, abs=1e-5)
    values = numbers(shown)
    if display == "picture":
        assert values is None
        assert shown.pictures is not None
        assert {each.shape for each in shown.pictures} == {shape}
        assert set(np.unique(shown.pictures[1])) <= {0, 255}  # every pixel changes by the most
        return
    assert values is not None
    assert values["display"] == display
    json.dumps(values, allow_nan=False)
    if display == "values":
        assert values["of"] == np.prod(shape)
        assert [abs(float(each["change"])) for each in values["rows"]] == pytest.approx(
            [0.1] * len(values["rows"]), abs=1e-3
        )


@pytest.mark.parametrize(
    "written",
    [
        {"model": "nobody"},
        {"epsilon": "7"},
        {"low": "2"},
        {"low": "nan"},
        {"class": "-1"},
        {"class": "²"},
        {"outcome": "lost"},
        {"page": "x"},
    ],
)
def test_wrong_filters_are_named(examples: RunExamples, written: dict[str, str]) -> None:
    (key,) = written
    with pytest.raises(SpecError, match=f"{key}: expected"):
        page_values(examples, InputStore(examples.folder), written)


# The server ---------------------------------------------------------------------------------------


@pytest.fixture
def server(examples: RunExamples) -> Iterator[ViewerServer]:
    with ViewerServer(examples, 0) as serving:
        thread = threading.Thread(target=serving.serve_forever, daemon=True)
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


def ask(
    server: ViewerServer, path: str, *, method: str = "GET", cookie: bool = True, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    own = {"Cookie": f"{server.cookie}={server.token}"} if cookie else {}
    connection = http.client.HTTPConnection(HOST, server.port, timeout=20)
    connection.request(method, path, headers={**own, **headers})
    reply = connection.getresponse()
    return reply.status, dict(reply.getheaders()), reply.read()


def test_the_printed_address_gives_the_cookie_and_the_page(server: ViewerServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    path = server.address("example=5").partition(str(server.port))[2].partition("#")[0]
    status, headers, _ = ask(server, path, cookie=False)
    assert (status, headers["Location"]) == (303, "/")
    assert headers["Set-Cookie"].startswith(f"{server.cookie}={server.token}; ")
    assert "HttpOnly" in headers["Set-Cookie"]
    status, headers, content = ask(server, "/")
    assert status == 200
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert b'<script src="viewer.js"></script>' in content
    for name in ("/viewer.js", "/viewer.css"):
        assert ask(server, name)[0] == 200
    assert b"innerHTML" not in ask(server, "/viewer.js")[2]


@pytest.mark.parametrize("path", ["/", "/api/run", "/api/examples", "/image?example=5&kind=clean"])
def test_others_get_nothing(server: ViewerServer, path: str) -> None:
    assert ask(server, path, cookie=False)[0] == 403
    assert ask(server, path, cookie=False, Cookie=f"{server.cookie}=wrong")[0] == 403
    # The name of another site that leads to this machine.
    for host in (
        "evil.example",
        f"evil.example:{server.port}",
        "127.0.0.1",
        f"127.0.0.1:{server.port}.",
    ):
        assert ask(server, path, Host=host)[0] == 403
    if path != "/":
        assert ask(server, path, **{"Sec-Fetch-Site": "cross-site"})[0] == 403
    assert ask(server, path, Host=f"localhost:{server.port}")[0] == 200 or "image" in path


def test_it_only_reads(server: ViewerServer, examples: RunExamples) -> None:
    before = {path: path.stat().st_mtime_ns for path in examples.folder.rglob("*")}
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert ask(server, "/api/run", method=method)[0] == 501
    for path in ("/../run.json", "/static/viewer.js", "/run.json", "/%2e%2e/run.json"):
        assert ask(server, path)[0] == 404
    assert ask(server, "/api/run", method="HEAD")[2] == b""
    assert ask(server, "/" + "x" * 5000)[0] == 414
    assert {path: path.stat().st_mtime_ns for path in examples.folder.rglob("*")} == before


def test_its_answers_are_values_and_pictures(server: ViewerServer) -> None:
    status, _, content = ask(server, "/api/examples?epsilon=0.1")
    assert status == 200
    assert json.loads(content)["total"] == COUNT
    status, _, content = ask(server, "/api/examples?epsilon=7")
    assert status == 400
    assert "expected one of 0.1, 0.2" in json.loads(content)["error"]
    for kind in ("clean", "change", "adversarial"):
        asked = urlencode({"epsilon": "0.1", "example": 5, "kind": kind})
        status, headers, content = ask(server, f"/image?{asked}")
        assert (status, headers["Content-Type"]) == (200, "image/png")
        assert Image.open(io.BytesIO(content)).size == (4, 4)
    assert ask(server, "/image?epsilon=0.2&example=5&kind=change")[0] == 404
    assert ask(server, "/image?epsilon=0.1&example=5&kind=other")[0] == 400


def test_a_port_in_use_is_named(server: ViewerServer, examples: RunExamples) -> None:
    with pytest.raises(SpecError, match=f"port {server.port} can't be used"):
        ViewerServer(examples, server.port)


def test_a_model_with_other_examples_is_left_out_of_the_agreement(tmp_path: Path) -> None:
    examples = made_run(tmp_path, transfer=False)
    file = tmp_path / OUTCOMES / "other-fgsm-0-1.parquet"
    digest = "other-fgsm-0-1"
    given = {"other": np.zeros(COUNT, dtype=np.int64)}
    fewer = outcome_of(digest, given, seed=0).taken(np.arange(7))
    write_table(outcome_table(fewer), file)
    inputs = InputStore(tmp_path)
    for model, others in (("other", {"other"}), ("net", {"net", "third"})):
        page = page_values(examples, inputs, {"model": model, "epsilon": "0.1"})
        assert page["rows"]
        question = parse_filters({"model": model, "epsilon": "0.1"}, examples)
        assert set(examples.compared(question)) == others


RAW = {
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 403),
    "no host, by the first protocol": (b"GET / HTTP/1.0\r\n\r\n", 403),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: 127.0.0.1:@\r\nHost: evil.example\r\n\r\n", 403),
    "a name that leads here": (b"GET / HTTP/1.1\r\nHost: evil.example:@\r\n\r\n", 403),
    "another port": (b"GET / HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n", 403),
    "a name before it": (b"GET / HTTP/1.1\r\nHost: a@127.0.0.1:@\r\n\r\n", 403),
    "a name after it": (b"GET / HTTP/1.1\r\nHost: 127.0.0.1:@.evil.example\r\n\r\n", 403),
    "an address of another site": (b"GET http://evil/ HTTP/1.1\r\nHost: 127.0.0.1:@\r\n\r\n", 403),
    "no address": (b"GET http://[ HTTP/1.1\r\nHost: 127.0.0.1:@\r\n\r\n", 400),
    "many parameters": (b"GET /?" + b"a=1&" * 900 + b" HTTP/1.1\r\nHost: 127.0.0.1:@\r\n\r\n", 400),
    "a long address": (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: 127.0.0.1:@\r\n\r\n", 414),
    "a longer one": (b"GET /" + b"a" * 99_000 + b" HTTP/1.1\r\n\r\n", 414),
    "many headers": (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 900 + b"\r\n", 431),
    "no request": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", 400),
    "another method": (b"POST / HTTP/1.1\r\nHost: 127.0.0.1:@\r\nContent-Length: 0\r\n\r\n", 501),
    "a cookie that is none": (
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1:@\r\nCookie: \xff=;;\x01=\xe9\r\n\r\n",
        403,
    ),
    "a token that is none": (b"GET /?token=%ff%00\xe9 HTTP/1.1\r\nHost: 127.0.0.1:@\r\n\r\n", 403),
}


@pytest.mark.parametrize("name", RAW)
def test_requests_that_no_browser_sends(
    server: ViewerServer, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    written, status = RAW[name]
    with socket.create_connection((HOST, server.port), timeout=20) as connection:
        connection.sendall(written.replace(b":@", f":{server.port}".encode()))
        # The server reads no more than it must, and then resets the connection.
        reply = b""
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(65536):
                reply += part
    assert f" {status} ".encode() in reply.partition(b"\r\n")[0] + b" "
    assert server.token.encode() not in reply
    assert not any(capfd.readouterr())


@pytest.mark.parametrize(
    "path",
    ["/../run.json", "/..%2f..%2fetc/passwd", "//etc/passwd", "/viewer.js/../../inputs.py", "/%00"],
)
def test_no_file_is_served_by_its_name(server: ViewerServer, path: str) -> None:
    assert ask(server, path)[0] == 404


def test_files_that_are_damaged_or_removed_while_they_are_served(
    server: ViewerServer, examples: RunExamples, capfd: pytest.CaptureFixture[str]
) -> None:
    for number, each in enumerate(sorted(examples.folder.rglob("*.*"))):
        if each.is_file() and number % 2:
            each.unlink()
        elif each.is_file():
            each.write_bytes(each.read_bytes()[::-1])
    cells = [(row.model, row.attack, str(row.epsilon)) for row in examples.cells()]
    for model, attack, epsilon in cells:
        query = urlencode({"model": model, "attack": attack, "epsilon": epsilon, "example": 0})
        for path in ("/api/run", "/api/examples", "/api/example", "/image"):
            status, _, content = ask(server, f"{path}?{query}&kind=clean")
            assert status in (200, 400, 404, 409), content
    assert not any(capfd.readouterr())
