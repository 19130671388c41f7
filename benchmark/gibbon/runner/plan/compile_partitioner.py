"""What a compiled model keeps of its forward pass for the backward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch._functorch.partitioners import default_partition
from torch._inductor.custom_graph_pass import CustomPartitionerFn
from torch.fx import GraphModule


class KeepsWhatLayersGive(CustomPartitionerFn):
    """Keeps for the backward pass what the forward pass computes anyway, as torch itself does.

    Left to itself the compiler keeps the smallest tensors that will do, such as a mask of where a
    rectifier is on; on a processor, which reads masks slowly, that made forward and backward
    passes longer than torch's own.
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
        """Returns the name that what was compiled so has in the compiler's cache."""
        return "gibbon.runner.plan.compile_partitioner: torch's default partition"
