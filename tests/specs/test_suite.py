"""Suites: what TOML may say, where it is wrong, and a round trip through JSON."""

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gibbon.core.errors import SpecError, UnknownNameError
from gibbon.core.threat import Epsilon, Norm
from gibbon.specs.decoding import key_path, parse_suite, read_suite, shipped_suites
from gibbon.specs.suite import AttackSpec, DatasetSpec, ModelSpec, Suite

BASE = 'name = "x"\ndataset = "mnist"\nmodels = ["softmax", "rbf"]\n'
FGSM = '[[attacks]]\nname = "fgsm"\nepsilon = "0.25"\n'


def parse(text: str) -> Suite:
    return parse_suite(text, where="x.toml")


def fault_of(text: str) -> str:
    with pytest.raises(SpecError) as told:
        parse(text)
    return str(told.value)


def test_the_short_form_is_one_experiment():
    suite = parse(BASE + "seed = 7\n" + FGSM + '[transfer]\nattacks = ["fgsm"]\n')
    (experiment,) = suite.experiments
    assert (suite.name, suite.seed, experiment.dataset.name) == ("x", 7, "mnist")
    assert [(each.name, each.model) for each in experiment.models] == [
        ("softmax", "softmax"),
        ("rbf", "rbf"),
    ]
    (attack,) = experiment.attacks
    assert (attack.name, attack.label, attack.clip, attack.norm) == ("fgsm", "fgsm", True, None)
    assert attack.epsilon == (Epsilon.parse("0.25"),)
    assert experiment.transfer is not None
    assert experiment.transfer.attacks == ("fgsm",)


def test_the_long_form_says_the_same():
    short = parse(BASE + FGSM)
    long = parse(
        'name = "x"\n[[experiments]]\ndataset = "mnist"\nmodels = ["softmax", "rbf"]\n'
        '[[experiments.attacks]]\nname = "fgsm"\nepsilon = ["0.25"]\n'
    )
    assert short == long


def test_models_have_names_registered_names_and_weights():
    suite = parse_suite(
        'name = "x"\ndataset = "mnist"\n'
        'models = ["rbf", {model = "maxout", name = "mine", weights = "mine.safetensors"}, '
        '{name = "softmax", weights = "/abs/s.safetensors"}]\n',
        where="x.toml",
        folder=Path("suites"),
    )
    found = [(each.name, each.model, each.weights) for each in suite.experiments[0].models]
    assert found == [
        ("rbf", "rbf", None),
        ("mine", "maxout", "suites/mine.safetensors"),
        ("softmax", "softmax", "/abs/s.safetensors"),
    ]


def test_an_attack_keeps_its_own_parameters_as_written():
    text = 'name = "pgd"\nepsilon = [0.1, "8/255"]\nlabel = "strong"\nnorm = "l2"\nclip = false\n'
    suite = parse(BASE + "[[attacks]]\n" + text + 'steps = 40\nstep_size = "2/255"\n')
    (attack,) = suite.experiments[0].attacks
    assert attack.parameters == {"steps": 40, "step_size": "2/255"}
    assert (attack.label, attack.norm, attack.clip) == ("strong", Norm.L2, False)
    assert [str(epsilon) for epsilon in attack.epsilon] == ["0.1", "8/255"]


def test_a_text_that_ends_too_early_has_its_line_and_column():
    with pytest.raises(SpecError, match=r"at line 2, column 16, the end of the document"):
        parse_suite('name = "x"\nmodels = ["rbf"', where="x.toml")


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ('name = "x\n', 1, 10),
        ('name = "x"\nmodels = [\n  "a"\n  "b"\n]\n', 4, 3),
        ('name = "x"\nname = "y"\n', 2, 11),
        ("= 1\n", 1, 1),
        ('name = "x"\nseed = 01\n', 2, 9),
    ],
)
def test_malformed_toml_has_its_line_and_column(text, line, column):
    fault = fault_of(text)
    assert fault.startswith("x.toml: malformed TOML: ")
    assert f"(at line {line}, column {column})" in fault


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (BASE + "sede = 1", "x.toml: sede: unknown key; did you mean 'seed'?"),
        (BASE + "modles = []", "x.toml: modles: unknown key; did you mean 'models'?"),
        (BASE + "zzz = 1", "x.toml: zzz: unknown key."),
        (
            'name = "x"\ndataset = "mnist"\nmodels = [{model = "rbf", wieghts = "a"}]',
            "x.toml: models[0].wieghts: unknown key; did you mean 'weights'?",
        ),
        (
            BASE + FGSM + '[transfer]\nattacks = ["fgsm"]\natacks = 1',
            "x.toml: transfer.atacks: unknown key; did you mean 'attacks'?",
        ),
        (
            'name = "x"\n[[experiments]]\ndataset = "mnist"\nmodels = ["rbf"]\natacks = 1',
            "x.toml: experiments[0].atacks: unknown key; did you mean 'attacks'?",
        ),
        ('name = "x"\nmodels = ["rbf"]', "x.toml: dataset: is missing"),
        ('dataset = "mnist"\nmodels = ["rbf"]', "x.toml: name: is missing"),
        (BASE + '[[attacks]]\nepsilon = "0.1"', "x.toml: attacks[0].name: is missing"),
        (BASE + '[[attacks]]\nname = "fgsm"', "x.toml: attacks[0].epsilon: is missing"),
    ],
)
def test_unknown_and_missing_keys_are_told_with_their_path(text, fault):
    message, _, valid = fault_of(text).partition(" Valid keys: ")
    assert message == fault
    assert bool(valid) == ("unknown key" in fault)
    near = fault.partition("did you mean '")[2].partition("'")[0]
    assert not near or near in valid.split(", ")


@pytest.mark.parametrize("key", ["eps", "epsilons"])
def test_other_names_of_the_budget_work(key):
    suite = parse_suite(BASE + f'[[attacks]]\nname = "fgsm"\n{key} = "8/255"', where="x.toml")
    (attack,) = suite.experiments[0].attacks
    assert str(attack.epsilon[0]) == "8/255"
    assert not attack.parameters


@pytest.mark.parametrize("norm", ["Linf", "l-inf", "l_inf", "L∞", "inf", "LINF"])
def test_other_spellings_of_a_norm_work(norm):
    text = BASE + f'[[attacks]]\nname = "pgd"\nepsilon = 1\nnorm = "{norm}"'
    assert parse_suite(text, where="x.toml").experiments[0].attacks[0].norm is Norm.LINF


def test_an_option_of_a_run_is_no_key():
    assert "give --batch-size to run" in fault_of(BASE + "batch_size = 3")


@pytest.mark.parametrize(
    ("written", "path", "fault"),
    [
        ('"-0.1"', "attacks[0].epsilon[0]", "epsilon must not be negative, got '-0.1'"),
        ("-1", "attacks[0].epsilon[0]", "epsilon must not be negative, got -1"),
        ('"a lot"', "attacks[0].epsilon[0]", "a number such as 0.25 or \"8/255\", got 'a lot'"),
        ('["0.1", "8/0"]', "attacks[0].epsilon[1]", "got '8/0'"),
        ("nan", "attacks[0].epsilon[0]", "got nan"),
        ("true", "attacks[0].epsilon[0]", "got True"),
        ("[[0.1]]", "attacks[0].epsilon[0]", "got [0.1]"),
        ("[]", "attacks[0].epsilon", "must not be empty"),
        ('["0.5", "1/2"]', "attacks[0].epsilon", "epsilon 0.5 and 1/2 are the same"),
    ],
)
def test_an_epsilon_that_is_none_is_told(written, path, fault):
    told = fault_of(BASE + f'[[attacks]]\nname = "fgsm"\nepsilon = {written}\n')
    assert told.startswith(f"x.toml: {path}: ")
    assert fault in told


def test_a_fraction_is_an_epsilon():
    suite = parse(BASE + '[[attacks]]\nname = "fgsm"\nepsilon = "8/255"\n')
    (epsilon,) = suite.experiments[0].attacks[0].epsilon
    assert (float(epsilon), str(epsilon)) == (8 / 255, "8/255")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (BASE + FGSM + FGSM, "two attacks have the label 'fgsm'; give each its own `label`"),
        (
            'name = "x"\ndataset = "mnist"\nmodels = ["rbf", "rbf"]',
            "two models have the name 'rbf'; give each its own `name`",
        ),
        (
            BASE + FGSM + '[transfer]\nattacks = ["fgms"]',
            "transfer names attack 'fgms', which this experiment does not run; "
            "did you mean 'fgsm'?",
        ),
        (BASE + FGSM + 'label = "none"', "'none' is the unattacked row: it is always there"),
        (BASE + "seed = -1", "x.toml: seed: "),
        (BASE + "seed = 1.5", "x.toml: seed: "),
        ('name = "x"\ndataset = "mnist"\nmodels = []', "x.toml: models: "),
        (
            'name = "a b"\ndataset = "mnist"\nmodels = ["rbf"]',
            "x.toml: name: must be made of letters, digits",
        ),
        ('name = "../x"\ndataset = "mnist"\nmodels = ["rbf"]', "x.toml: name: "),
        (BASE + FGSM + 'norm = "l7"', "x.toml: attacks[0].norm: "),
    ],
)
def test_what_can_not_be_is_told(text, fault):
    assert fault in fault_of(text)


def test_two_labels_tell_two_entries_of_one_attack_apart():
    suite = parse(BASE + FGSM + FGSM + 'label = "fgsm-2"\n')
    assert [each.label for each in suite.experiments[0].attacks] == ["fgsm", "fgsm-2"]


def test_all_faults_are_told_at_once():
    lines = fault_of(BASE + 'sede = 1\n[[attacks]]\nname = "fgsm"\nepsilon = -1\n').splitlines()
    assert len(lines) == 2
    assert all(line.startswith("x.toml: ") for line in lines)


def test_specs_are_frozen():
    suite = parse(BASE)
    with pytest.raises(ValueError, match="frozen"):
        suite.seed = 1  # type: ignore[misc]


def test_a_suite_file_that_can_not_be_read_is_told(tmp_path):
    with pytest.raises(SpecError, match=r"no\.toml: can't be read: No such file"):
        read_suite(str(tmp_path / "no.toml"))
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    with pytest.raises(SpecError, match=r"latin\.toml: is not UTF-8: 'utf-8'"):
        read_suite(str(tmp_path / "latin.toml"))


def test_weights_are_found_beside_the_suite_file(tmp_path):
    text = 'name = "x"\ndataset = "mnist"\nmodels = [{model = "rbf", weights = "w.safetensors"}]'
    (tmp_path / "x.toml").write_text(text, encoding="utf-8")
    suite = read_suite(str(tmp_path / "x.toml"))
    assert suite.experiments[0].models[0].weights == str(tmp_path / "w.safetensors")


def test_an_unknown_suite_is_told_with_the_nearest():
    with pytest.raises(UnknownNameError, match="unknown suite 'smok'; did you mean 'smoke'"):
        read_suite("smok")


def test_every_shipped_suite_is_named_as_its_file_and_survives_a_round_trip():
    shipped = shipped_suites()
    assert {"goodfellow2015", "mnist-linf", "smoke"} <= shipped.keys()
    for name, suite in shipped.items():
        assert read_suite(name) == suite
        assert Suite.model_validate_json(suite.model_dump_json()) == suite


names = st.text(string.ascii_letters + string.digits, min_size=1, max_size=8).map("n{}".format)
epsilons = st.fractions(0, 10, max_denominator=1000).map(str) | st.floats(0, 10, allow_nan=False)
values = st.integers(-5, 5) | st.booleans() | st.sampled_from(["cw", "2/255"]) | st.floats(0, 1)
parameters = st.dictionaries(st.sampled_from(["steps", "keep", "loss"]), values)


@st.composite
def attacks(draw):
    written = draw(st.lists(epsilons, min_size=1, max_size=3, unique_by=Epsilon.parse))
    extra = draw(parameters)
    fixed = {"name": draw(names), "epsilon": written, "clip": draw(st.booleans())}
    norm = draw(st.sampled_from(["linf", "l2", None]))
    return {**extra, **fixed, **({"norm": norm} if norm else {})}


@st.composite
def suites(draw):
    def experiment(dataset: str) -> dict:
        chosen = draw(st.lists(attacks(), max_size=3, unique_by=lambda each: each["name"]))
        transfer = {"transfer": {"attacks": [each["name"] for each in chosen]}} if chosen else {}
        models = draw(st.lists(names, min_size=1, max_size=3, unique=True))
        return {"dataset": dataset, "models": models, "attacks": chosen, **transfer}

    datasets = draw(st.lists(names, min_size=1, max_size=2, unique=True))
    seed = draw(st.integers(0, 2**63 - 1))
    return {
        "name": draw(names),
        "seed": seed,
        "title": draw(st.text(max_size=10)),
        "experiments": [experiment(each) for each in datasets],
    }


@given(suites())
def test_a_suite_survives_a_round_trip_through_json(written):
    suite = Suite.model_validate(written)
    again = Suite.model_validate_json(suite.model_dump_json())
    assert again == suite
    assert again.model_dump_json() == suite.model_dump_json()


@given(attacks())
def test_an_attacks_parameters_survive_a_round_trip_as_written(written):
    spec = AttackSpec.model_validate(written)
    again = AttackSpec.model_validate_json(spec.model_dump_json())
    assert again.parameters == spec.parameters
    as_written = [str(Epsilon.parse(each)) for each in written["epsilon"]]
    assert [str(each) for each in again.epsilon] == as_written


def test_a_key_path_is_written_as_in_the_file():
    assert key_path(["experiments", 0, "attacks", 2, "steps"]) == "experiments[0].attacks[2].steps"
    assert key_path([]) == ""


def test_a_path_is_a_source_like_its_text() -> None:
    path = Path("nets") / "net.onnx"
    assert ModelSpec.model_validate(path) == ModelSpec.model_validate(str(path))
    model = {"model": "nets/small.py:Net", "weights": "w.pt"}
    assert ModelSpec.model_validate(
        {"model": Path(model["model"]), "weights": Path(model["weights"])}
    ) == ModelSpec.model_validate(model)
    data = {"source": "photos", "class_map": "map.json", "labels": "y.npy"}
    assert DatasetSpec.model_validate(
        {key: Path(value) for key, value in data.items()}
    ) == DatasetSpec.model_validate(data)


PUBLISHED = '[[published]]\nsection = "1"\ndataset = "mnist"\nmodel = "softmax"\nvalue = 0.5\n'


def test_a_published_certified_error_is_an_upper_bound():
    (row,) = parse(BASE + FGSM + PUBLISHED + 'measure = "certified_error"\n').published
    assert row.bound == "upper"
    (row,) = parse(
        BASE + FGSM + PUBLISHED + 'measure = "worst_case_error"\nbound = "lower"\n'
    ).published
    assert row.bound == "lower"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ('measure = "mean_confidence"\nbound = "lower"', "a bound is of an error"),
        ('measure = "certified_error"\nbound = "lower"', "is an upper bound"),
        ('measure = "certified_error"\nproved = "ids.txt"', "needs measure"),
        ('measure = "clean_error"\nproved = "ids.txt"\nnorm = "linf"', "needs measure"),
    ],
)
def test_a_published_bound_that_is_none_is_refused(keys, words):
    assert words in fault_of(BASE + FGSM + PUBLISHED + keys + "\n")


def test_a_file_of_published_proofs_is_relative_to_the_suite():
    keys = 'measure = "certified_error"\nproved = "ids.txt"\nnorm = "linf"\n'
    suite = parse_suite(BASE + FGSM + PUBLISHED + keys, where="x.toml", folder=Path("suites"))
    assert suite.published[0].proved == "suites/ids.txt"


@pytest.mark.parametrize("key", ["certify", "bounds"])
def test_certified_bounds_of_a_suite_are_all_none_or_not_said(key):
    texts = (f"{key} = true", f"{key} = false", "")
    assert [parse(BASE + text).certify for text in texts] == [True, False, None]
    assert "certify" not in parse(BASE).model_dump()


def test_bounds_of_inputs_belong_to_the_dataset():
    assert "certify" in fault_of(BASE + 'certify = "yes"')
    assert "bounds of inputs belong to the dataset" in fault_of(BASE + "bounds = [-1, 1]")
    assert "both given" in fault_of(BASE + "bounds = true\ncertify = true")
    dataset = DatasetSpec.model_validate({"source": "x.npz", "bounds": [-1, 1]})
    assert dataset.bounds == (-1.0, 1.0)
    with pytest.raises(ValidationError, match="the lower one must come first"):
        DatasetSpec.model_validate({"source": "x.npz", "bounds": [1, -1]})
