"""What words on a command line ask for: order tells what belongs to what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gibbon.cli.grammar import parse_request
from gibbon.cli.options import OPTIONS, scalar
from gibbon.core.errors import SpecError
from gibbon.core.threat import Norm
from gibbon.records.stores import LocalStore
from gibbon.runner.settings import RunSettings
from gibbon.specs.naming import suite_name, unlike
from gibbon.specs.suite import AttackSpec, DatasetSpec, ModelSpec

BASE = "--model rbf --dataset mnist --attack fgsm --epsilon 0.1"


def parts(text: str) -> tuple[tuple[ModelSpec, ...], DatasetSpec, tuple[AttackSpec, ...]]:
    (experiment,) = parse_request(text.split()).suite.experiments
    return experiment.models, experiment.dataset, experiment.attacks


def attacks(text: str) -> list[dict[str, Any]]:
    _, _, found = parts(f"--model rbf --dataset mnist {text}")
    return [
        {
            **({"label": each.label} if each.label != each.name else {}),
            "name": each.name,
            "epsilon": [str(epsilon) for epsilon in each.epsilon],
            **each.parameters,
        }
        for each in found
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("--attack fgsm --epsilon 8/255", [{"name": "fgsm", "epsilon": ["8/255"]}]),
        ("--attack fgsm --epsilon=8/255", [{"name": "fgsm", "epsilon": ["8/255"]}]),
        ("--epsilon 0.1,8/255 --attack fgsm", [{"name": "fgsm", "epsilon": ["0.1", "8/255"]}]),
        (
            "--attack fgsm --epsilon 0.10 --epsilon 8/255",
            [{"name": "fgsm", "epsilon": ["0.10", "8/255"]}],
        ),
        (
            "--attack fgsm --epsilon 0.1 --attack pgd",
            [{"name": "fgsm", "epsilon": ["0.1"]}, {"name": "pgd", "epsilon": ["0.1"]}],
        ),
        (
            "--attack fgsm --attack pgd --epsilon 0.1",
            [{"name": "fgsm", "epsilon": ["0.1"]}, {"name": "pgd", "epsilon": ["0.1"]}],
        ),
        (
            "--attack a --attack b --epsilon 1 --attack c --attack d --epsilon 2 --attack e",
            [
                {"name": name, "epsilon": [epsilon]}
                for name, epsilon in zip("abcde", "11122", strict=True)
            ],
        ),
        (
            "--epsilon 1 --attack a --attack b --epsilon 2 --attack c",
            [
                {"name": name, "epsilon": [epsilon]}
                for name, epsilon in zip("abc", "121", strict=True)
            ],
        ),
        (
            "--attack pgd --epsilon 0.1 --steps 20 --random-start false --step-size=2/255",
            [
                {
                    "name": "pgd",
                    "epsilon": ["0.1"],
                    "steps": 20,
                    "random_start": False,
                    "step_size": "2/255",
                }
            ],
        ),
        (
            "--attack pgd --epsilon 0.1 --random-start --steps -3",
            [{"name": "pgd", "epsilon": ["0.1"], "random_start": True, "steps": -3}],
        ),
        (
            "--attack pgd --epsilon 0.1 --no-random-start",
            [{"name": "pgd", "epsilon": ["0.1"], "random_start": False}],
        ),
        (
            "--epsilon 0.1 --steps 5 --attack pgd --attack pgd --steps 7",
            [
                {"name": "pgd", "epsilon": ["0.1"], "steps": 5},
                {"name": "pgd", "label": "pgd-2", "epsilon": ["0.1"], "steps": 7},
            ],
        ),
        (
            "--epsilon 1 --attack foolbox:LinfPGD --steps 3",
            [{"name": "foolbox:LinfPGD", "label": "foolbox-LinfPGD", "epsilon": ["1"], "steps": 3}],
        ),
        (
            "--epsilon 1 --attack pgd --label pgd-2 --attack pgd --attack pgd",
            [
                {"name": "pgd", "label": "pgd-2", "epsilon": ["1"]},
                {"name": "pgd", "epsilon": ["1"]},
                {"name": "pgd", "label": "pgd-3", "epsilon": ["1"]},
            ],
        ),
    ],
)
def test_what_stands_after_an_attack_belongs_to_it(
    text: str, expected: list[dict[str, Any]]
) -> None:
    assert attacks(text) == expected


def test_an_attack_has_a_norm_and_may_leave_the_range() -> None:
    _, _, found = parts(f"{BASE} --norm linf --no-clip --attack pgd --norm l2")
    assert [(each.norm, each.clip) for each in found] == [(Norm.LINF, False), (Norm.L2, True)]
    _, _, found = parts("--no-clip --norm l2 " + BASE + " --attack pgd --clip true")
    assert [(each.norm, each.clip) for each in found] == [(Norm.L2, False), (Norm.L2, True)]


def test_what_stands_after_a_model_belongs_to_it() -> None:
    models, _, _ = parts(
        "--outputs logits --model a.py:Net --mean 0.5,0.25 --std 1,2 --arg depth=3 --arg kind=x "
        "--attack fgsm --epsilon 0.1 --weights a.pt --model torchvision:resnet18 --name second "
        "--trust-pickle --outputs probabilities --dataset mnist"
    )
    first, second = models
    assert first == ModelSpec(
        name="Net",
        model="a.py:Net",
        mean=(0.5, 0.25),
        std=(1, 2),
        weights="a.pt",
        arguments={"depth": 3, "kind": "x"},
        outputs="logits",
    )
    assert second == ModelSpec(
        name="second", model="torchvision:resnet18", trust_pickle=True, outputs="probabilities"
    )


def test_arguments_before_the_first_model_are_everybodys() -> None:
    models, _, _ = parts(
        "--arg a=1 --arg b=2 --model x.py:f --arg b=3 --model x.py:g --dataset mnist "
        "--attack fgsm --epsilon 1"
    )
    assert [each.arguments for each in models] == [{"a": 1, "b": 3}, {"a": 1, "b": 2}]


def test_everything_about_the_data() -> None:
    _, data, _ = parts(
        f"{BASE} --split train --class-map c.json --labels l.npy --inputs x --layout NHWC "
        "--resize 40x30 --crop 24 --interpolation bicubic --colour grey --skip-unreadable "
        "--dataset-arg size=4"
    )
    assert data == DatasetSpec(
        name="mnist",
        source="mnist",
        split="train",
        class_map="c.json",
        labels="l.npy",
        inputs="x",
        layout="NHWC",
        resize=(40, 30),
        crop=24,
        interpolation="bicubic",
        colour="grey",
        skip_unreadable=True,
        arguments={"size": 4},
    )


def test_how_to_run_it() -> None:
    asked = parse_request(
        f"{BASE} --output out --device cpu --batch-size 7 --precision bfloat16 --compile "
        "--models-in-memory 2 --decoders 0 --limit 9 --fresh --data-dir d --offline --seed 5 "
        "--save-suite s.toml --strict --accept zero-gradient --accept wide-budget".split()
    )
    assert asked.settings == RunSettings(
        device="cpu",
        batch_size=7,
        precision="bfloat16",
        compile=True,
        models_in_memory=2,
        decoders=0,
        limit=9,
        fresh=True,
        data_folder=Path("d"),
        download=False,
        pictures=True,
    )
    assert (asked.suite.seed, asked.output) == (5, LocalStore(Path("out")))
    assert asked.save_suite == Path("s.toml")
    assert (asked.strict, asked.suite.accept) == (True, ("zero-gradient", "wide-budget"))
    usual = RunSettings(pictures=True)
    plain = parse_request([*BASE.split(), "--batch-size", "auto"])
    assert (plain.settings, plain.strict, plain.suite.accept) == (usual, False, ())


def test_several_models_make_a_transfer_matrix() -> None:
    text = BASE + " --attack pgd"
    (one,) = parse_request(text.split()).suite.experiments
    (two,) = parse_request(f"{text} --model maxout".split()).suite.experiments
    (none,) = parse_request(f"{text} --model maxout --no-transfer".split()).suite.experiments
    assert (one.transfer, none.transfer) == (None, None)
    assert two.transfer is not None
    assert two.transfer.attacks == ("fgsm", "pgd")


def test_errors_alone_are_not_transferred() -> None:
    text = f"{BASE} --attack pgd --carried --model maxout"
    (usual,) = parse_request(text.split()).suite.experiments
    assert usual.transfer is not None
    assert usual.transfer.attacks == ("fgsm",)
    assert [each.carried for each in usual.attacks] == [False, True]
    (alone,) = parse_request(f"{text} --error-only".split()).suite.experiments
    assert (usual.error_only, alone.error_only) == (False, True)
    assert alone.transfer is None


def test_attacks_are_adapted_to_a_defence() -> None:
    text = (
        f"{BASE} --eot 20 --backward a.b=identity --backward c=nets/f.py:soft --before softmax "
        "--attack pgd --draws 50"
    )
    suite = parse_request(text.split()).suite
    (experiment,) = suite.experiments
    first, second = experiment.attacks
    assert (first.eot, first.before) == (20, "softmax")
    assert first.backward == {"a.b": "identity", "c": "nets/f.py:soft"}
    assert not second.adaptation()
    assert experiment.draws == 50
    for words, message in (
        ("--eot 0", "--eot: expected a whole number greater than or equal to"),
        ("--backward quantise", "--backward: expected MODULE=FUNCTION, such as quantiser=identity"),
        ("--backward a=identity --backward a=identity", "--backward a is given twice"),
        ("--before", "--before needs a value"),
    ):
        with pytest.raises(SpecError) as raised:
            parse_request(f"{BASE} {words}".split())
        assert message in str(raised.value)


def test_a_suite_is_named_after_its_data_and_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path / "photos")
    words = "--model x/net.onnx --model y/net.onnx --dataset . --attack a --epsilon 1"
    asked = parse_request(words.split())
    assert asked.suite.name == "photos-net+net-2"
    assert len(suite_name("d", ["model"] * 40)) == 80
    assert suite_name("d", ["model"] * 40, precision="bfloat16").endswith("-bfloat16")
    asked = parse_request(f"{BASE} --precision bfloat16".split())
    assert asked.suite.name == "mnist-rbf-bfloat16"


def test_a_folder_that_is_called_like_a_word_stays_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "mnist", "ckpt"):
        Path(name).mkdir()

    def sources(words: str) -> tuple[str, str | None]:
        (model,), data, _ = parts(f"{words} --attack fgsm --epsilon 1")
        return data.source, model.weights

    assert sources("--model rbf --weights ckpt --dataset photos") == ("./photos", "./ckpt")
    assert sources("--model rbf --weights random --dataset mnist") == ("mnist", "random")
    assert sources("--model rbf --weights a/../w.pt --dataset ./mnist") == ("./mnist", "w.pt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "missing: --model, --dataset, --attack. For example: --model softmax"),
        ("--model rbf", "missing: --dataset, --attack"),
        ("--dataset mnist --attack fgsm", "missing: --model"),
        ("--model rbf --dataset mnist --attack fgsm", "missing: --epsilon"),
        (
            "--model rbf --dataset mnist --attack fgsm --epsillon 0.1",
            "--epsillon: no such option; did",
        ),
        ("--modle rbf --dataset mnist --attack fgsm", "--modle: no such option; did you mean '--m"),
        ("--model rbf --datset mnist --attack fgsm", "--datset: no such option; did you mean '--d"),
        ("--model rbf --dataset mnist --atack fgsm", "--atack: no such option; did you mean '--a"),
        ("--model rbf --attack fgsm --datasett mnist", "--datasett: no such option; did you"),
        ("rbf", "unexpected 'rbf': every value belongs to an option, such as --model rbf"),
        (f"{BASE} -x", "unexpected '-x'"),
        (f"{BASE} --", "unexpected '--'"),
        ("--model --dataset mnist", "--model needs a value: --model SOURCE"),
        (f"{BASE} --output", "--output needs a value: --output DIR"),
        (f"{BASE} --output=", "--output needs a value"),
        (f"{BASE} --fresh=no", "--fresh takes no value, got 'no'"),
        (f"{BASE} --dataset rbf", "--dataset is given twice"),
        (f"{BASE} --name a --name b", "--name is given twice"),
        (f"{BASE} --steps 1 --steps 2", "--steps is given twice"),
        (f"{BASE} --arg a=1 --arg a=2", "--arg a is given twice"),
        (f"{BASE} --arg depth", "--arg: expected KEY=VALUE, such as depth=18, got 'depth'"),
        (f"{BASE} --mean 1,x", "--mean: expected numbers with commas between them"),
        (f"{BASE} --mean 1,2", "--model rbf: mean is given without std"),
        (f"{BASE} --mean 1,2 --std 1", "--model rbf: mean has 2 numbers and std 1"),
        (f"{BASE} --mean 1 --std 0", "--model rbf --std: Input should be greater than 0, got 0.0"),
        (f"{BASE} --outputs odds", "--model rbf --outputs: Input should be 'logits'"),
        (f"{BASE} --name a/b", "--model rbf --name: must be made of letters"),
        (
            f"{BASE} --name x --model x.py:f --name x",
            "two models have the name 'x'; give each its own `--name`",
        ),
        (f"{BASE} --norm l7", "--attack fgsm --norm: Input should be 'linf'"),
        (f"{BASE} --epsilon x", "--attack fgsm --epsilon: epsilon must be a number such as 0.25"),
        (f"{BASE} --epsilon 1/10", "--attack fgsm --epsilon: epsilon 0.1 and 1/10 are the same"),
        (f"{BASE} --label none", "--attack fgsm: 'none' is the unattacked row"),
        (
            f"{BASE} --label x --attack pgd --label x",
            "two attacks have the label 'x'; give each its own `--label`",
        ),
        (f"{BASE} --resize 0", "--resize: expected one side such as 224, or height and width"),
        (f"{BASE} --crop 1x2x3", "--crop: expected one side such as 224"),
        (f"{BASE} --layout CHWN", "--layout: Input should be 'NCHW'"),
        (f"{BASE} --split val", "--split: Input should be 'train' or 'test', got 'val'"),
        (f"{BASE} --colour red", "--colour: Input should be 'grey' or 'rgb', got 'red'"),
        (f"{BASE} --batch-size 0", "--batch-size: expected auto or a whole number greater than"),
        (f"{BASE} --batch-size big", "or equal to 1, got 'big'"),
        (f"{BASE} --limit 1.5", "--limit: expected a whole number greater than or equal to 1"),
        (f"{BASE} --decoders -1", "--decoders: expected a whole number greater than or equal to 0"),
        (f"{BASE} --workers 0", "--workers: expected a whole number greater than or equal to 1"),
        (f"{BASE} --precision half", "--precision: expected float32 or bfloat16, got 'half'"),
        (f"{BASE} --seed 9223372036854775808", "--seed: "),
        (f"{BASE} --strict=yes", "--strict takes no value, got 'yes'"),
        (f"{BASE} --accept", "--accept needs a value: --accept KIND"),
        (
            f"{BASE} --accept wide-budjet",
            "--accept: there is no kind of flag 'wide-budjet'; did you mean 'wide-budget'?",
        ),
    ],
)
def test_what_can_not_be_is_told_in_options(text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_request(text.split())
    assert message in str(caught.value)
    assert "evaluate:" not in str(caught.value)


def test_key_paths_of_a_run_are_told_as_options() -> None:
    words = f"{BASE} --attack pgd --steps 0 --step-size x --model maxout"
    asked = parse_request(words.split())
    told = asked.in_options(
        "evaluate: attacks[1].step_size: must be a number\n"
        "evaluate: attacks[1].steps: must be more, got 0\n"
        "evaluate: models[1]: 'maxout': has 3 classes\n"
        "evaluate: dataset: unknown dataset\n"
        "evaluate: dataset.class_map: no file\n"
        "--device: is not there"
    )
    assert told.splitlines() == [
        "--attack pgd --step-size: must be a number",
        "--attack pgd --steps: must be more, got 0",
        "--model maxout: 'maxout': has 3 classes",
        "--dataset: unknown dataset",
        "--class-map: no file",
        "--device: is not there",
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-1", -1),
        ("1e-3", 1e-3),
        ("true", True),
        ("True", "True"),
        ("word", "word"),
        ('"1"', "1"),
        ("[1, 2]", [1, 2]),
        ("2020-01-01", "2020-01-01"),
        ("1\nother = 2", "1\nother = 2"),
        ("{ a = 1 }", "{ a = 1 }"),
        ("1 # note", 1),
        ("", ""),
    ],
)
def test_a_value_is_read_as_in_a_suite(text: str, value: Any) -> None:
    read = scalar(text)
    assert read == value
    assert type(read) is type(value)


@given(st.text())
def test_any_text_is_some_value(text: str) -> None:
    assert isinstance(scalar(text), bool | int | float | str | list)


@given(st.lists(st.sampled_from(["a", "a-2", "a-3", "b"]), max_size=8), st.booleans())
def test_names_become_different(names: list[str], taken: bool) -> None:
    found = unlike(names, taken=["a"] if taken else [])
    assert len(set(found)) == len(names)
    for place, (new, old) in enumerate(zip(found, names, strict=True)):
        if taken and old == "a":
            assert new != "a"
        elif old not in names[:place]:
            assert new == old


words = st.sampled_from(
    [
        *(option.flag for option in OPTIONS),
        *("--steps", "--no-x", "--", "-1", "20", "8/255", "mnist", "rbf", "fgsm", "=", "--="),
        *("--mean=1,2", "--epsilon=0.1", "a=1", "./x", "auto"),
    ]
)


@given(st.lists(words, max_size=14))
def test_any_words_are_a_request_or_an_error_that_says_why(line: list[str]) -> None:
    told = ""
    try:
        assert parse_request(line).suite.experiments[0].attacks
    except SpecError as error:
        told = str(error)
    assert "evaluate:" not in told


def test_every_option_has_a_help_text_and_a_flag_of_its_own() -> None:
    flags = [option.flag for option in OPTIONS]
    assert len(flags) == len(set(flags))
    for option in OPTIONS:
        assert len(option.help) > 10, option.flag
        assert option.help.endswith((".", "]")), option.flag
