"""TorchScript files.  A script is code, but TorchScript's own: it reaches no Python."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import nn

from benchmark.errors import ModelError
from benchmark.sources import Found, ModelSource, Preprocessing, place_of
from benchmark.sources.files import archive_digest, check_file, refuse_extras
from benchmark.sources.wording import gist
from benchmark.specs import ModelSpec


class TorchScript(ModelSource):
    """A file that ``torch.jit.save`` wrote: ``net.torchscript``, ``net.pt``."""

    def check(self, spec: ModelSpec) -> None:
        """Refuses a file that is not there, and arguments."""
        check_file(Path(place_of(spec, "torchscript")))
        refuse_extras(spec, what="a TorchScript file")

    def open(self, spec: ModelSpec) -> Found:
        """Returns the script.  Raises `ModelError` where the file is damaged or something else."""
        refuse_extras(spec, what="a TorchScript file")
        path = Path(place_of(spec, "torchscript"))
        check_file(path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that TorchScript is deprecated
                module: nn.Module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
        except Exception as error:
            raise ModelError(f"{path}: damaged, or no TorchScript file: {gist(error)}") from error
        return Found(
            module=module, identity=f"torchscript:{archive_digest(path)}", weights_used=True
        )

    def preprocessing(self, spec: ModelSpec) -> Preprocessing | None:
        """Returns None: a script does not say how pictures are prepared for it."""
        return None
