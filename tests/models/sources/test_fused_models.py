"""Ensembles as they are written: forms, members by name, what is refused, what is filed where."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from made_models import SHAPE, network, write_code, write_onnx
from safetensors.torch import save_file

from gibbon.cli.grammar import parse_request
from gibbon.cli.suite_writer import suite_toml
from gibbon.core.errors import ModelError, RequestError, SpecError
from gibbon.models.sources.build import build_model, check_model, preprocessing_of
from gibbon.models.weights import state_digest
from gibbon.records.run import RunRecord
from gibbon.runner.run_suite import run_suite
from gibbon.runner.settings import RunSettings
from gibbon.specs.decoding import parse_suite
from gibbon.specs.suite import ModelSpec, Suite

PAGE = Path(__file__).parents[3] / "docs" / "your-model.md"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_code(tmp_path)
    for name, seed in (("a", 1), ("b", 2)):
        save_file(network(seed=seed).state_dict(), tmp_path / f"{name}.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def suite(models: str, folder: Path = Path()) -> Suite:
    text = f'name = "x"\ndataset = "mnist"\n{models}'
    return parse_suite(text, where="x.toml", folder=folder)


def models_of(written: Suite) -> tuple[ModelSpec, ...]:
    (experiment,) = written.experiments
    return experiment.models


A = {"name": "a", "model": "net.py:build", "weights": "a.safetensors"}
B = {"name": "b", "model": "net.py:build", "weights": "b.safetensors"}


def spec_of(*members: Any, **fields: Any) -> ModelSpec:
    return ModelSpec(name="both", ensemble=members or (A, B), **fields)


# Forms


@pytest.mark.parametrize(
    "written",
    [
        'models = [{ name = "softmax+maxout", ensemble = ["softmax", "maxout"] }]',
        'models = ["ensemble:softmax,maxout"]',
        'models = [{ model = "ensemble:softmax, maxout" }]',
        '[[models]]\nensemble = ["softmax", { model = "maxout" }]',
    ],
)
def test_its_forms_mean_the_same(written: str) -> None:
    (found,) = models_of(suite(written))
    members = (
        ModelSpec(name="softmax", model="softmax"),
        ModelSpec(name="maxout", model="maxout"),
    )
    assert found == ModelSpec(
        name="softmax+maxout", model="ensemble:softmax,maxout", ensemble=members
    )


def test_words_of_the_command_line_make_one() -> None:
    text = (
        "--model nets/a.py:build --name a --weights a.pt --model ensemble:a,maxout --fuse loss "
        "--shares 1,3 --dataset mnist --attack mi-fgsm --epsilon 0.1"
    )
    asked = parse_request(text.split())
    one, both = models_of(asked.suite)
    assert (both.name, both.model, both.fuse) == ("a+maxout", "ensemble:a,maxout", "loss")
    assert both.ensemble == (one, ModelSpec(name="maxout", model="maxout"))
    assert both.shares == (1, 3)


TABLES = """
[[models]]
name = "both"
ensemble = ["a", "rbf", { model = "net.py:Net", arguments = { scale = 2 }, name = "c" }]
fuse = "loss"
shares = [1, 2, 0.5]

[[models]]
name = "a"
model = "net.py:build"
weights = "a.safetensors"
mean = [0.5]
std = [0.5]
"""


def test_members_are_other_models_by_name_and_files_are_found_from_the_suite(here: Path) -> None:
    both, one = models_of(suite(TABLES, Path("nets")))
    assert both.ensemble[0] == one
    assert [each.model for each in both.ensemble] == ["nets/net.py:build", "rbf", "nets/net.py:Net"]
    assert both.ensemble[0].weights == "nets/a.safetensors"


@pytest.mark.parametrize("folder", [".", "suites", "../beside"])
def test_a_saved_suite_is_read_as_the_same(here: Path, folder: str) -> None:
    written = suite(TABLES)
    text = suite_toml(written, folder=Path(folder))
    assert parse_suite(text, where="y.toml", folder=Path(folder)) == written
    assert Suite.model_validate(written.model_dump()) == written


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ('{ name = "e", ensemble = [] }', "models[0]: ensemble must not be empty"),
        (
            '{ ensemble = ["rbf"], fuse = "mean" }',
            "models[0].fuse: Input should be 'probabilities'",
        ),
        ('{ ensemble = ["rbf"], shares = [1, 2] }', "shares has 2 numbers and ensemble 1 members"),
        ('{ ensemble = ["rbf"], shares = [0] }', "models[0].shares[0]: "),
        ('{ ensemble = ["rbf"], weights = "w.pt" }', "give them to a member of the ensemble"),
        ('{ ensemble = ["rbf"], arguments = { a = 1 } }', "give them to a member of the ensemble"),
        ('{ ensemble = ["rbf"], model = "softmax" }', "model and ensemble are both given"),
        ('{ model = "rbf", fuse = "loss" }', "fuse is for an ensemble"),
        ('{ model = "rbf", shares = [1] }', "shares is for an ensemble"),
        ('{ ensemble = ["rbf", { ensemble = ["rbf"] }] }', "is an ensemble itself"),
        ('{ name = "e", ensemble = ["rbf", "e"] }', "member 'e' of 'e' is an ensemble itself"),
        (
            '{ ensemble = ["rbf", { model = "rbf", wieghts = "a" }] }',
            "models[0].ensemble[1].wieghts: unknown key; did you mean 'weights'?",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_place(written: str, fault: str) -> None:
    with pytest.raises(SpecError) as told:
        suite(f"models = [{written}]")
    assert fault in str(told.value)


def test_the_suite_on_the_page_about_your_own_model_is_one() -> None:
    (text,) = re.findall(r"```toml\n(# ensembles.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    models = models_of(parse_suite(text, where="ensembles.toml"))
    ensembles = [each for each in models if each.ensemble]
    assert [each.fuse for each in ensembles] == [None, "loss"]
    for each in ensembles:
        check_model(each, where="")


# Members


@pytest.mark.parametrize(
    ("member", "fault"),
    [
        ("maxuot", "models[1]: member 'maxuot': unknown model 'maxuot'; did you mean 'maxout'?"),
        ({"model": "net.py:build", "weights": "c.safetensors"}, "member 'build': 'build': c.safe"),
        ("nte.py:build", "member 'build': model: no file 'nte.py'; did you mean 'net.py'?"),
    ],
)
def test_a_member_that_does_not_exist_is_refused_before_anything_is_loaded(
    here: Path, member: Any, fault: str
) -> None:
    with pytest.raises(RequestError) as told:
        check_model(spec_of(A, member), where="models[1]")
    assert fault in str(told.value)


def test_members_that_do_not_fit_are_named(here: Path) -> None:
    other = {"name": "c", "model": "maxout"}
    with pytest.raises(ModelError, match=r"'c' has 10 classes, 'a' has 4: they can't be fused"):
        build_model(spec_of(A, other), input_shape=SHAPE)


def test_what_it_says_of_inputs_holds_for_members_that_say_nothing(here: Path) -> None:
    own = {**A, "mean": [0.25], "std": [0.75]}
    built = build_model(spec_of(own, B, mean=[0.5], std=[0.5]), input_shape=SHAPE)
    apart = build_model(spec_of(own, {**B, "mean": [0.5], "std": [0.5]}), input_shape=SHAPE)
    assert state_digest(built.classifier.module) == state_digest(apart.classifier.module)
    assert built.identity == apart.identity


def test_it_is_forward_only_where_a_member_is(here: Path) -> None:
    write_onnx(here / "c.onnx", network())
    built = build_model(spec_of(A, "c.onnx"), input_shape=SHAPE)
    assert built.classifier.forward_only.startswith("its member 'c': ")


def test_pictures_are_prepared_as_all_members_say() -> None:
    alike = spec_of("torchvision:resnet18", "torchvision:resnet34")
    assert preprocessing_of(alike) == preprocessing_of(alike.ensemble[0])
    assert preprocessing_of(spec_of("torchvision:resnet18", "torchvision:resnet50")) is None


def test_everything_that_makes_it_what_it_is_is_filed(here: Path) -> None:
    def filed(*members: Any, **fields: Any) -> tuple[str, str]:
        built = build_model(spec_of(*members, **fields), input_shape=SHAPE)
        return built.identity, state_digest(built.classifier.module)

    known = filed()
    assert filed() == known
    assert filed(fuse="probabilities", shares=[2, 2]) == known
    others = [
        filed(fuse="loss"),
        filed(fuse="logits"),
        filed(shares=[1, 2]),
        filed(B, A),
        filed(A),
        filed(A, A),
        filed({**A, "weights": "b.safetensors"}, B),
    ]
    assert len({known, *others}) == len(others) + 1


def test_notes_say_how_it_is_made(here: Path) -> None:
    built = build_model(spec_of(fuse="loss", shares=[1, 2]), input_shape=SHAPE)
    assert built.notes[0] == "fuses the loss of a, b, in shares of 1, 2"
    assert built.rebuilds


# As source and as target


def test_it_is_a_source_and_a_target_in_turns_and_goes_on(tmp_path: Path) -> None:
    written = suite(
        'models = ["softmax", "rbf", { name = "both", ensemble = ["softmax", "rbf"], '
        'fuse = "loss" }, { name = "mean", ensemble = ["softmax", "rbf"] }]\n'
        '[[attacks]]\nname = "mi-fgsm"\nepsilon = 0.2\nsteps = 3\n'
        '[transfer]\nattacks = ["mi-fgsm"]\n'
    )

    def run(folder: str, **settings: Any) -> RunRecord:
        return run_suite(
            written, tmp_path / folder, settings=RunSettings(device="cpu", limit=60, **settings)
        )

    record = run("one")
    assert not record.failures
    errors = {(row.source, row.target): row.error for row in record.transfers}
    assert len(errors) == 16
    both = [errors["both", target] for target in ("softmax", "rbf")]
    assert min(both) > max(errors["softmax", "rbf"], errors["rbf", "softmax"])
    clean = {row.model: row.clean_error for row in record.evaluations if row.unattacked}
    assert all(errors["softmax", name] > clean[name] + 0.1 for name in ("both", "mean"))
    assert run("one").provenance.computed_cells == 0
    in_turns = run("two", models_in_memory=1)
    assert in_turns.models == record.models
    assert [row.error for row in in_turns.transfers] == [row.error for row in record.transfers]
