"""Selects the tensors that a compiled model saves in the forward pass for the backward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch._functorch.partitioners import default_partition
from torch._inductor.custom_graph_pass import CustomPartitionerFn
from torch.fx import GraphModule


class SaveLayerOutputs(CustomPartitionerFn):
    """Saves the outputs of layers for the backward pass, as torch does without compilation.

    By default the compiler saves the smallest tensors that suffice, such as masks of the positive
    inputs of rectifiers.  CPUs read masks slowly, which made passes longer than without
    compilation.
    """

    def __call__(
        self, gm: GraphModule, joint_inputs: Sequence[object], **kwargs: Any
    ) -> tuple[GraphModule, GraphModule]:
        """Returns the forward and the backward graph."""
        return default_partition(
            gm,
            joint_inputs,
            num_fwd_outputs=kwargs["num_fwd_outputs"],
            static_lifetime_input_indices=kwargs.get("static_lifetime_input_indices"),
        )

    def uuid(self) -> str:
        """Returns the key of this partitioner in the compiler's cache."""
        return "gibbon.runner.device.compile_partitioner: torch's default partition"
