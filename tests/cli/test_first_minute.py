"""The first minute: customary attacks, other spellings, ``init``, ``--version``, own attacks."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from made_up import made_up_record
from rich.console import Console

from gibbon.attacks import ATTACKS
from gibbon.attacks.factory import build_attack
from gibbon.cli.app import main
from gibbon.cli.attack_cards import attack_card
from gibbon.cli.grammar import parse_request
from gibbon.core.errors import SpecError
from gibbon.records.run import RunRecord
from gibbon.report.content.summary.conclusion import assumptions, conclusions
from gibbon.report.text.terminal import print_record
from gibbon.runner.plan.cell_digest import attack_part
from gibbon.specs.decoding import read_suite
from gibbon.specs.suite import AttackSpec

ROOT = Path(__file__).parents[2]
OWN = """\
from dataclasses import dataclass
from gibbon import Attack

@dataclass(frozen=True)
class Mine(Attack):
    steps: int = 1

    def propose(self, classifier, inputs, *, labels, threat, streams):
        yield inputs + threat.radius * classifier.loss_gradient(inputs, labels).sign()
"""


@pytest.fixture
def gibbon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs a command in an empty folder: exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str, answers: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gibbon", *words])
        monkeypatch.setattr(sys, "stdin", io.StringIO(answers))
        with pytest.raises(SystemExit) as left:
            main()
        seen = capsys.readouterr()
        return int(left.value.code or 0), seen.out, seen.err

    return call


@pytest.mark.parametrize(
    ("words", "epsilon", "labels"),
    [
        ("--dataset mnist", "0.3", ["fgsm", "pgd", "worst-case"]),
        ("--dataset data/cifar-10/val", "8/255", ["fgsm", "pgd", "worst-case"]),
        ("--dataset imagenet-val", "4/255", ["fgsm", "pgd", "worst-case"]),
        ("--dataset photos --norm L2", "0.5", ["pgd", "worst-case"]),
        ("--dataset photos --norm l1", "12", ["pgd", "worst-case"]),
        ("--dataset photos --eps 2/255", "2/255", ["fgsm", "pgd", "worst-case"]),
        ("--dataset x.npz --bounds=-1,1", "16/255", ["fgsm", "pgd", "worst-case"]),
    ],
)
def test_without_an_attack_the_customary_ones_are_run(
    words: str, epsilon: str, labels: list[str]
) -> None:
    request = parse_request(["--model", "rbf", *words.split()], customary=True)
    (experiment,) = request.suite.experiments
    assert [each.label for each in experiment.attacks] == labels
    assert {str(each.epsilon[0]) for each in experiment.attacks} == {epsilon}
    for each in experiment.attacks:
        build_attack(each)
    assert request.settings.limit == 1000
    (note,) = request.notes
    assert note.startswith("no attack is given: ")
    assert epsilon in note
    assert "worst-case (apgd-ce, " in note


def test_what_is_given_is_kept() -> None:
    words = "--model rbf --dataset mnist --limit 7"
    request = parse_request(words.split(), customary=True)
    assert request.settings.limit == 7
    assert "on at most" not in request.notes[0]
    given = parse_request([*words.split(), "--attack", "fgsm", "--epsilon", "0.1"], customary=True)
    assert not given.notes
    with pytest.raises(SpecError, match="missing: --attack"):
        parse_request(words.split())
    with pytest.raises(SpecError, match=r"--steps: no such option.*--attack pgd --steps"):
        parse_request([*words.split(), "--steps", "3"], customary=True)
    rubbish = parse_request(["--model", "rbf", "--dataset", "rubbish:gaussian"], customary=True)
    assert rubbish.suite.experiments[0].attacks == ()


@pytest.mark.parametrize(
    "words",
    [
        "--eps 0.1 --batchsize 8",
        "--epsilons 0.1 --batch_size 8",
        "--Epsilon 0.1 --Batch-Size=8",
        "--eps=0.1 --bs 8",
    ],
)
def test_other_spellings_of_options_work(words: str) -> None:
    request = parse_request(f"--model rbf --data mnist --attack pgd {words}".split())
    assert str(request.suite.experiments[0].attacks[0].epsilon[0]) == "0.1"
    assert request.settings.batch_size == 8
    assert not request.suite.experiments[0].attacks[0].parameters


def test_other_commands_take_them_and_list_their_options(gibbon) -> None:
    code, _, said = gibbon("run", "smoke", "--batchsize", "x")
    assert code == 2
    assert "--batch-size" in said
    code, _, said = gibbon("run", "smoke", "--limitt", "3")
    assert (code, "did you mean '--limit'?" in said, "--batch-size" in said) == (2, True, True)
    code, _, said = gibbon("compare", "a", "b", "--maxincrease", "2")
    assert "No such option" not in said


def test_parameters_of_other_libraries_are_named(gibbon) -> None:
    start = ["evaluate", "--model", "rbf", "--dataset", "mnist", "--attack", "pgd", "--eps", "0.1"]
    for word, meant in (("--alpha", "--step-size"), ("--num-steps", "--steps")):
        code, _, said = gibbon(*start, word, "3")
        assert code == 2
        assert f"did you mean '{meant}'?" in said


def test_version(gibbon) -> None:
    code, said, _ = gibbon("--version")
    assert code == 0
    assert said.startswith("gibbon 0.")
    assert "Python" in said


def test_init_asks_three_questions_and_writes_a_suite_that_runs(gibbon, tmp_path: Path) -> None:
    code, said, asked = gibbon("init", "mine.toml", answers="softmax\n\nmnist\n")
    assert code == 0
    assert asked.count(": ") == 3
    assert "gibbon run mine.toml" in said
    suite = read_suite(str(tmp_path / "mine.toml"))
    assert [each.label for each in suite.experiments[0].attacks] == ["fgsm", "pgd", "worst-case"]
    text = (tmp_path / "mine.toml").read_text()
    assert text.count("\n# ") > 5
    # With the seed set free, it is still a suite.
    seeded = tmp_path / "seeded.toml"
    seeded.write_text(text.replace("# seed = 0", "seed = 5"))
    assert read_suite(str(seeded)).seed == 5


def test_init_never_overwrites_and_names_what_is_wrong(gibbon, tmp_path: Path) -> None:
    (tmp_path / "robustness.toml").write_text("mine")
    code, _, said = gibbon("init", "--model", "rbf", "--dataset", "mnist")
    assert (code, "never overwrites" in said) == (2, True)
    assert (tmp_path / "robustness.toml").read_text() == "mine"
    code, _, said = gibbon("init", "a\nb = 1.toml", "--model", "rbf", "--dataset", "mnist")
    assert (code, "line breaks" in said) == (2, True)
    for words, fault in (
        (["--model", "nope.py:build", "--dataset", "mnist"], "nope.py"),
        (["--model", "sofmax", "--dataset", "mnist"], "did you mean 'softmax'?"),
        (["--model", "rbf", "--dataset", "nowhere/"], "nowhere"),
        (["--model", "rbf"], "--dataset: is missing"),
    ):
        code, _, said = gibbon("init", "other.toml", *words)
        assert (code, fault in said) == (2, True), said
        assert not (tmp_path / "other.toml").exists()


def test_an_attack_of_a_file_is_evaluated(gibbon, tmp_path: Path) -> None:
    (tmp_path / "attacks").mkdir()
    (tmp_path / "attacks" / "mine.py").write_text(OWN)
    words = "--model rbf --dataset mnist --attack attacks/mine.py:Mine --epsilon 0.1 --limit 30"
    code, said, _ = gibbon(
        "evaluate", *words.split(), "--save-suite", "suites/s.toml", "--device", "cpu"
    )
    assert code == 0
    assert "Robust accuracy of rbf on mnist: at most " in said[: said.index("Evaluations on")]
    assert "by Mine (1 steps)" in " ".join(said.split())
    assert 'name = "../attacks/mine.py:Mine"' in (tmp_path / "suites" / "s.toml").read_text()
    (spec,) = read_suite("suites/s.toml").experiments[0].attacks
    assert (spec.name, spec.label) == ("attacks/mine.py:Mine", "Mine")
    code, _, said = gibbon("evaluate", *words.replace("Mine", "Mind", 1).split())
    assert (code, "did you mean 'Mine'?" in said) == (2, True)


def test_where_a_file_stands_is_no_part_of_its_digest(tmp_path: Path) -> None:
    parts = []
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "mine.py").write_text(OWN)
        name = f"{tmp_path / place / 'mine.py'}:Mine"
        parts.append(attack_part(build_attack(AttackSpec(name=name, epsilon=("0.1",)))))
    assert parts[0] == parts[1]


def test_conclusions_are_careful() -> None:
    record = made_up_record()
    softmax, *_ = conclusions(record)
    assert "at most 0.0 %" in softmax
    assert "of 1,000 examples (90.4 % unattacked)" in softmax
    assert "under L∞ changes of up to 0.25" in softmax
    assert "stronger with" not in softmax  # nothing is left to find
    assert conclusions(RunRecord.read(ROOT / "results" / "goodfellow2015")) == ()  # a table
    (careful,) = conclusions(RunRecord.read(ROOT / "results" / "attack-comparison"))
    for part in ("at most", "[12.0–22.3]", "of 200 examples", "18 attacks", "no checks were made"):
        assert part in careful
    assert "more of the 10,000 examples" in careful


def test_three_lines_say_what_was_assumed() -> None:
    inputs, normalisation, classes = assumptions(
        RunRecord.read(ROOT / "results" / "attack-comparison")
    )
    assert inputs == "Inputs: in [0, 1], ε in these units; 200 of 10,000 examples (a fixed sample)."
    assert normalisation.startswith("Normalisation: none given")
    assert classes.startswith("Classes: 10, in the dataset's own order: 0 is 0, ")


def test_they_stand_above_the_tables() -> None:
    stream = io.StringIO()
    record = RunRecord.read(ROOT / "results" / "efficientnet-lite0")
    print_record(record, Console(file=stream, width=80))
    text = stream.getvalue()
    places = [text.index(each) for each in ("Robust accuracy of", "Inputs:", "Evaluations on")]
    assert places == sorted(places)


def test_every_attack_has_a_card() -> None:
    for name in ATTACKS.names():
        card = attack_card(ATTACKS.load(name))
        assert {line.partition(":")[0] for line in card.splitlines()} >= {
            "norms",
            "search",
            "targets",
            "cost",
        }, name
        assert "not known" not in card
    assert "  steps = 40: gradient steps of one run" in attack_card(ATTACKS.load("pgd"))
    assert "cost: 41 forward and 40 backward" in attack_card(ATTACKS.load("pgd"))
    assert attack_card(int).startswith("(no card")  # type: ignore[arg-type]
