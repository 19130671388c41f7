"""No model file runs code before the user vouches for it, wherever a model can be given."""

from __future__ import annotations

import contextlib
import shutil
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hostile_models
import pytest
import torch
from hostile_models import PROGRAMS, SHAPE, script
from torch import nn

import gibbon
from gibbon.cli import app as cli
from gibbon.core.archives import check_directory
from gibbon.core.errors import ModelError, RequestError
from gibbon.models.sources.build import build_model, check_model
from gibbon.models.sources.torchscript import TorchScript
from gibbon.specs.decoding import parse_suite
from gibbon.specs.suite import ModelSpec

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
REFUSED = "nothing of it was loaded"
Exploit = Callable[[Path, Path], Path]
FGSM = ["--attack", "fgsm", "--epsilon", "0.1"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], Path]:
    """Every exploit's file, and the file that each of them makes if it runs."""
    folder = tmp_path_factory.mktemp("hostile")
    touched = folder / "touched"
    files = {each.__name__: each(folder / f"{each.__name__}.pt2", touched) for each in PROGRAMS}
    assert not touched.exists()
    return files, touched


def built(path: str | Path, **fields: Any) -> Any:
    spec = ModelSpec(name="net", model=str(path), **fields)
    return build_model(spec, input_shape=SHAPE)


@pytest.mark.parametrize("vouch", ["trust_code", "trust_pickle"])
@pytest.mark.parametrize("name", ["symbolic_shape", "guard"])
def test_the_exploits_are_real_so_that_a_vouch_is_one(
    made: tuple[dict[str, Path], Path], name: str, vouch: str
) -> None:
    files, touched = made
    with contextlib.suppress(RequestError):
        built(files[name], **{vouch: True})
    assert touched.exists()
    touched.unlink()


@pytest.mark.parametrize("exploit", [each.__name__ for each in PROGRAMS])
@pytest.mark.parametrize("name", ["net.pt2", "net.pt", "net.bin", "exported:net.data"])
def test_a_program_is_refused_under_any_name(
    made: tuple[dict[str, Path], Path], exploit: str, name: str
) -> None:
    files, touched = made
    shutil.copy(files[exploit], name.partition(":")[2] or name)
    for ask in (
        lambda spec: check_model(spec, where=""),
        lambda spec: build_model(spec, input_shape=SHAPE),
    ):
        with pytest.raises(ModelError, match=f"{REFUSED}.*--trust-code"):
            ask(ModelSpec(name="net", model=name))
    assert not touched.exists()


def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(8, *SHAPE), torch.arange(8) % 4


def written_pictures() -> str:
    inputs, labels = pictures()
    import numpy as np

    np.savez("data.npz", x=inputs.numpy(), y=labels.numpy())
    return "data.npz"


def command(*words: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["gibbon", *words])
        with pytest.raises(SystemExit) as left:
            cli.main()
    assert left.value.code == 2


def by_evaluate(path: Path) -> None:
    command("evaluate", "--model", str(path), "--dataset", written_pictures(), *FGSM)


def by_ensemble(path: Path) -> None:
    net = f"ensemble:{path},{path}"
    command("evaluate", "--model", net, "--dataset", written_pictures(), *FGSM)


def by_suite(path: Path) -> None:
    attack = '[[attacks]]\nname = "fgsm"\nepsilon = "0.1"\n'
    Path("s.toml").write_text(
        f'name = "s"\ndataset = "./{written_pictures()}"\nmodels = ["{path}"]\n{attack}'
    )
    command("run", "s.toml")


def by_weights(path: Path) -> None:
    Path("net.py").write_text(
        "from torch import nn\ndef build():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(36, 4))\n"
    )
    words = ("--model", "net.py:build", "--weights", str(path))
    command("evaluate", *words, "--dataset", written_pictures(), *FGSM)


def by_audit(path: Path) -> None:
    command("audit", str(path), "--unit-test", "--dataset", written_pictures(), *FGSM)


def by_python(path: Path) -> None:
    with pytest.raises(RequestError, match=REFUSED):
        gibbon.evaluate(path, pictures(), attack="fgsm", epsilon=0.1)


def by_python_in_an_ensemble(path: Path) -> None:
    own = nn.Sequential(nn.Flatten(), nn.Linear(36, 4))
    both = {"own": own, "theirs": path, "both": "ensemble:own,theirs"}
    with pytest.raises(RequestError, match=REFUSED):
        gibbon.evaluate(both, pictures(), attack="fgsm", epsilon=0.1)


DOORS = (
    by_evaluate,
    by_ensemble,
    by_suite,
    by_weights,
    by_audit,
    by_python,
    by_python_in_an_ensemble,
)


@pytest.mark.parametrize("name", ["symbolic_shape", "guard"])
@pytest.mark.parametrize("door", DOORS)
def test_nothing_runs_wherever_a_model_is_given(
    made: tuple[dict[str, Path], Path], door: Callable[[Path], None], name: str
) -> None:
    files, touched = made
    door(files[name])
    assert not touched.exists()


def test_nothing_runs_in_a_check_of_a_test(
    made: tuple[dict[str, Path], Path], robustness: Any, request: pytest.FixtureRequest
) -> None:
    files, touched = made
    from gibbon.pytest_plugin import Robustness

    silent = Robustness(request)
    silent._report = lambda *_: None  # type: ignore[method-assign]
    with pytest.raises(RequestError, match=REFUSED):
        silent.check(files["guard"], pictures(), attack="fgsm", epsilon=0.1, max_error=1.0)
    assert not touched.exists()


def test_a_vouch_is_given_in_python_and_in_a_suite(tmp_path: Path) -> None:
    path = hostile_models.program(tmp_path / "net.pt2")
    results = gibbon.evaluate(path, pictures(), attack="fgsm", epsilon=0.1, trust_code=True)
    assert not results.failures
    suite = parse_suite(
        'name = "s"\ndataset = "mnist"\nmodels = [{ model = "net.pt2", trust_code = true }]',
        where="s.toml",
    )
    assert suite.experiments[0].models[0].trusted
    assert "running its code" in built(path, trust_code=True).notes[0]


# TorchScript: code that reaches files is found under any name that torch finds it under.

RENAMED: dict[str, Callable[[str], str]] = {
    "as-it-is": str,
    "capital-suffix": lambda name: name.removesuffix(".py") + ".PY" * name.endswith(".py"),
    "capital-folder": lambda name: name.replace("/code/", "/CODE/"),
    "mixed": lambda name: name.replace("/code/", "/Code/").replace(".py", ".pY"),
}


@contextlib.contextmanager
def loading_is_an_error() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("it was loaded"))
        yield


@pytest.mark.parametrize("how", RENAMED)
def test_a_script_that_writes_a_file_is_found_under_any_name(tmp_path: Path, how: str) -> None:
    path, touched = tmp_path / "net.ts", tmp_path / "touched"
    script(path, touched, rename=RENAMED[how])
    touched.unlink(missing_ok=True)
    with pytest.raises(ModelError, match=r"names 'save'.*--trust-code"):
        built(path)
    assert not touched.exists()
    with contextlib.suppress(RequestError):
        built(path, trust_code=True)
    assert touched.exists()  # so it was no harmless file


def test_a_script_that_only_torch_finds_is_not_loaded(tmp_path: Path) -> None:
    path, touched = tmp_path / "net.ts", tmp_path / "touched"
    hostile_models.two_directories(path, touched)
    touched.unlink(missing_ok=True)
    for name in ("net.ts", "net.pt"):
        shutil.copy(path, tmp_path / f"copy-{name}")
        with pytest.raises(ModelError, match="its directory is ambiguous"):
            built(tmp_path / f"copy-{name}")
    with pytest.raises(RequestError, match="its directory is ambiguous"):
        built("net.py:build", weights=weights_with_a_front())
    assert not touched.exists()
    with contextlib.suppress(RuntimeError):
        torch.jit.load(path)
    assert touched.exists()  # so it was no harmless file


def weights_with_a_front() -> str:
    """Writes a checkpoint with something in front of its archive, and returns its path."""
    Path("net.py").write_text(
        "from torch import nn\ndef build():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(36, 4))\n"
    )
    state = nn.Sequential(nn.Flatten(), nn.Linear(36, 4)).state_dict()
    torch.save(state, "whole.pt")
    content = Path("whole.pt").read_bytes()
    Path("weights.pt").write_bytes(b"in front" + content)
    return "weights.pt"


def test_what_torch_saves_has_one_directory(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(36, 4)).eval()
    torch.save(module.state_dict(), tmp_path / "a.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(module), tmp_path / "b.ts")
        torch.jit.save(torch.jit.trace(module, torch.zeros(2, *SHAPE)), tmp_path / "c.ts")
    for path in tmp_path.iterdir():
        check_directory(path, problem=ModelError)
    assert built(tmp_path / "c.ts").classifier.classes == 4


@pytest.mark.parametrize(
    ("entry", "content", "reason"),
    [
        ("code/other.py", 'print ("\x1b[2J")', "prints, by which it may control the terminal"),
        ("code/other.py", "ops.c10d.broadcast_(x)", "uses operations of 'c10d'"),
        ("code/other.py", "ops . mine . run(x)", "uses operations of 'mine'"),
        ("code/other.py", "x : __torch__.torch.classes.dist.Store", "uses classes of 'dist'"),
        ("data.pkl", "c__torch__.torch.classes.dist\nStore\n", "uses classes of 'dist'"),
        ("code/__torch__", "", "parts that are not looked through"),
        ("CODE/__torch__/Net.PY", "", "several entries have one name"),
        ("model.json", "{}", "a form that is not looked through"),
    ],
)
def test_what_a_script_may_not_name(tmp_path: Path, entry: str, content: str, reason: str) -> None:
    path = tmp_path / "net.ts"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/constants.pkl", b"\x80\x02).")
        archive.writestr("net/code/__torch__/Net.py", "class Net(Module):\n  pass\n")
        archive.writestr(f"net/{entry}", content)
    with loading_is_an_error(), pytest.raises(ModelError, match=reason):
        TorchScript().open(ModelSpec(name="net", model=str(path)))


def test_quantised_networks_of_torchscript_need_no_vouch(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(36, 4)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.ao.quantization.quantize_dynamic(module, {nn.Linear})
        torch.jit.save(torch.jit.script(quantised), tmp_path / "net.ts")
    assert built(tmp_path / "net.ts").classifier.classes == 4
