"""Checks before anything is timed: SFT must compute the right values, and peers must give the right shapes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from .cases import BenchmarkCase, BenchmarkSuite, Workload
from .measure import Step, describe_failure
from .sft_modules import attention_parts, backends_used, use_backend, use_fixed_sample

# Relative root-mean-square errors against float64 that rounding explains. A gradient jumps, by up to 1e-4 in all,
# when rounding moves a score across a kink; a wrong computation has far larger errors.
OUTPUT_LIMITS = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
GRADIENT_LIMITS = {torch.float32: 1e-3, torch.bfloat16: 1e-1}
# The sizes are odd, so that every tiling has a ragged end.
GATE_LENGTH, GATE_SAMPLED_TOKENS, GATE_BATCH = 133, 37, 2


class GateResult(NamedTuple):
    """The errors of one SFT case against the eager computation in float64.

    Attributes:
        label: label of the case.
        dtype: dtype that was checked.
        backend: backend that ran.
        output_error: relative root-mean-square error of the outputs, the largest of all layers.
        gradient_error: the same error for the gradients of states and weights.
    """

    label: str
    dtype: torch.dtype
    backend: str
    output_error: float
    gradient_error: float

    @property
    def passed(self) -> bool:
        """Whether outputs and gradients are right; with NaN they are not."""
        right = self.output_error <= OUTPUT_LIMITS[self.dtype]
        return right and self.gradient_error <= GRADIENT_LIMITS[self.dtype]

    def __str__(self) -> str:
        return (
            f"{self.label}, {str(self.dtype).removeprefix('torch.')}, {self.backend}: relative RMS error of outputs "
            f"{self.output_error:.1e} (limit {OUTPUT_LIMITS[self.dtype]:.0e}), of gradients "
            f"{self.gradient_error:.1e} (limit {GRADIENT_LIMITS[self.dtype]:.0e}): {'ok' if self.passed else 'WRONG'}"
        )


def check_sft(suite: BenchmarkSuite, case: BenchmarkCase, workload: Workload) -> GateResult:
    """Compare the attention of an SFT case with the eager computation in float64, layer by layer.

    Each layer's attention gets the inputs that it receives in the model, so that the rest of the model neither adds
    errors nor hides any.

    Args:
        suite: gives the inputs.
        case: an SFT case.
        workload: gives sizes, dtype, device and seed; length, batch and sample are small and odd.
    """
    sampled = min(GATE_SAMPLED_TOKENS, workload.size.num_sampled_tokens)
    size = replace(workload.size, num_sampled_tokens=sampled)
    workload = workload._replace(size=size, length=GATE_LENGTH, batch_size=GATE_BATCH)
    step = Step(case, workload, "training", suite.inputs(workload))
    _move_off_initial_values(step.module, workload.seed)
    use_fixed_sample(step.module)
    calls: list[tuple[nn.Module, tuple, dict]] = []
    handles = [
        part.register_forward_pre_hook(lambda *call: calls.append(call), with_kwargs=True)
        for part in attention_parts(step.module)
    ]
    step.forward()
    for handle in handles:
        handle.remove()
    errors = [_attention_errors(*call, workload.seed) for call in calls]
    return GateResult(
        case.label,
        workload.dtype,
        backends_used(step.module),
        max(output_error for output_error, _ in errors),
        max(gradient_error for _, gradient_error in errors),
    )


def check_peer(suite: BenchmarkSuite, case: BenchmarkCase, workload: Workload) -> str | None:
    """Run a peer once for inference; return what is wrong, or `None` if its outputs are finite and have the shape."""
    try:
        Step(case, workload, "inference", suite.inputs(workload)).checked()
    except Exception as error:  # a peer may fail in any way, and the others must go on
        return describe_failure(error)
    return None


def relative_error(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The norm of all differences, divided by the norm of all expected values, over all tensors together."""
    difference = sum(float((a.double() - b.double()).square().sum()) for a, b in zip(found, expected, strict=True))
    return (difference / sum(float(b.double().square().sum()) for b in expected)) ** 0.5


def _attention_errors(part: nn.Module, arguments: tuple, named: dict, seed: int) -> tuple[float, float]:
    """Errors of the outputs and of the gradients in one call of an attention."""
    reference = copy.deepcopy(part).double()
    use_backend(reference, "eager")
    found = _outputs_and_gradients(part, arguments, named, None, seed)
    exact = _outputs_and_gradients(reference, arguments, named, torch.float64, seed)
    return relative_error([found[0]], [exact[0]]), relative_error(found[1], exact[1])


def _outputs_and_gradients(
    part: nn.Module, arguments: tuple, named: dict, dtype: torch.dtype | None, seed: int
) -> tuple[Tensor, list[Tensor]]:
    """The output, and gradients of weights and states for a random gradient of it; arguments are cast to `dtype`."""
    leaves: list[Tensor] = list(part.parameters())

    def copied(tensor: Tensor) -> Tensor:
        return tensor.detach().to((dtype or tensor.dtype) if tensor.is_floating_point() else tensor.dtype).clone()

    arguments, named = tree_map_only(Tensor, copied, (arguments, named))
    # Only states ask for a gradient: geometry has none in training, and not every backend computes one.
    states = [tensor for tensor in arguments if isinstance(tensor, Tensor) and tensor.is_floating_point()]
    leaves += [tensor.requires_grad_() for tensor in states]
    result: Any = part(*arguments, **named)
    output: Tensor = result[0] if isinstance(result, tuple) else result
    generator = torch.Generator().manual_seed(seed)
    cotangent = torch.randn(output.shape, generator=generator).to(output.device, output.dtype)
    return output.detach(), list(torch.autograd.grad(output, leaves, cotangent, materialize_grads=True))


@torch.no_grad()
def _move_off_initial_values(module: nn.Module, seed: int) -> None:
    """Add noise to all weights: those that start at zero would hide errors in what they multiply."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.add_((0.05 * noise).to(parameter.device, parameter.dtype))
