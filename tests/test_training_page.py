"""The commands and programs of docs/training.md run as they are written."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gibbon.cli.app import main
from gibbon_zoo.own_card import read_own_card

PAGE = (Path(__file__).parents[1] / "docs" / "training.md").read_text(encoding="utf-8")
NETWORK, CALL = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[:2]
(RECIPE,) = re.findall(r"```toml\n(# recipe\.toml.*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"```sh\n(gibbon .*?)```", PAGE, re.DOTALL)


def test_a_users_model_is_trained_and_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NETWORK, encoding="utf-8")
    Path("recipe.toml").write_text(RECIPE, encoding="utf-8")
    random = np.random.default_rng(0)
    for split, count in (("train", 20), ("val", 8)):
        for place, name in enumerate(("dark", "light")):
            folder = Path("photos", split, name)
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 150, (12, 12, 3)) + 90 * place
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    assert [command.split()[1] for command in COMMANDS] == ["train", "evaluate", "train"]
    for command in COMMANDS:
        words = shlex.split(command.replace("\\\n", " "))
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as left:
            main()
        assert not left.value.code, command
    card = read_own_card(Path("small/build.json"))
    assert card.recipe.objective.name == "pgd"
    assert Path("small/tensorboard/validation").is_dir()
    narrow = read_own_card(Path("narrow/seed-1/narrow.json"))
    assert narrow.recipe.objective.name == "trades"
    assert narrow.recipe.stopping is not None
    assert narrow.recipe.stopping.second == "again"


def test_the_python_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    exec(CALL, scope)  # noqa: S102
    assert Path("from-python/Sequential.safetensors").exists()
