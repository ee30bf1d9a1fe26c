"""Transforms of `torch.func`, vectorised Jacobians and second derivatives: right, or refused with the remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap
from torch.utils._pytree import tree_leaves

from attention_cases import Case, arguments, attention_inputs
from modeling_sft.attention.backends import ATTENTION_BACKENDS, attend
from modeling_sft.attention.scores import ATTENTION_SCORES

Function = Callable[[Tensor, Tensor], Tensor]


def by_pairs(score: str) -> Function:
    """A score in operations whose derivatives PyTorch knows well."""

    def maxout(q: Tensor, k: Tensor) -> Tensor:
        mean, deviation = torch.pi**-0.5, (1 - 1 / torch.pi) ** 0.5
        return ((torch.maximum(q, k) - mean) / deviation).sum(-1)

    def signed_min(q: Tensor, k: Tensor) -> Tensor:
        return ((q + k).abs() - (q - k).abs()).sum(-1)

    of_channels = {"maxout": maxout, "signed_min": signed_min, "dot": lambda q, k: (q * k).sum(-1)}[score]
    return lambda query, key: of_channels(query[..., :, None, :], key[..., None, :, :]) / query.shape[-1] ** 0.5


def bent(function: Function) -> Function:
    """With a second derivative that is not 0."""
    return lambda query, key: function(query, key).square().sin()


def hessian_of_both(f: Function, q: Tensor, k: Tensor) -> Any:
    return torch.autograd.functional.hessian(lambda a, b: f(a, b).sum(), (q, k))


def jacobian(f: Function, q: Tensor, k: Tensor, **choice: Any) -> Any:
    return torch.autograd.functional.jacobian(f, (q, k), vectorize=True, **choice)


TRANSFORMS: dict[str, Callable[[Function, Tensor, Tensor], Any]] = {
    "vmap": lambda f, q, k: vmap(f)(q, k),
    "vmap over queries": lambda f, q, k: vmap(f, in_dims=(1, None), out_dims=1)(q, k[0]),
    "vmap of other ranks": lambda f, q, k: vmap(jacrev(f, argnums=(0, 1)))(q, torch.stack([k, k.sin()])),
    "gradients per sample": lambda f, q, k: vmap(grad(lambda a, b: f(a, b).sum(), argnums=(0, 1)))(q, k),
    "jacrev": lambda f, q, k: jacrev(f, argnums=(0, 1))(q, k),
    "jacfwd": lambda f, q, k: jacfwd(f, argnums=(0, 1))(q, k),
    "jvp": lambda f, q, k: jvp(f, (q, k), (q.sin(), k.cos())),
    "jvp of one": lambda f, q, k: jvp(lambda a: f(a, k), (q,), (q.sin(),)),
    "hessian": lambda f, q, k: hessian(lambda a: f(a, k).sum())(q),
    "vectorised jacobian": jacobian,
    "forward jacobian": lambda f, q, k: jacobian(f, q, k, strategy="forward-mode"),
    "second derivatives": hessian_of_both,
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("score", ATTENTION_SCORES)
def test_scores_are_right_under_every_transform(score: str, transform: str) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(2, n, 3, generator=generator, dtype=torch.float64) for n in (5, 4))
    apply = TRANSFORMS[transform]
    found = tree_leaves(apply(bent(ATTENTION_SCORES[score]), query, key))
    expected = tree_leaves(apply(bent(by_pairs(score)), query, key))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", [name for name, backend in ATTENTION_BACKENDS.items() if not backend.transformable])
def test_other_backends_name_the_remedy(name: str) -> None:
    case = Case(score="dot", probability="softmax", leak=False)
    inputs = attention_inputs(case)

    def total(query: Tensor) -> Tensor:
        return attend(arguments(case, inputs._replace(leaves=inputs.leaves | {"query": query})), name)[0].sum()

    with pytest.raises(RuntimeError, match=r'set_attn_implementation\("eager"\)'):
        grad(total)(inputs.leaves["query"].detach())


@pytest.mark.parametrize("score", ATTENTION_SCORES)
def test_second_derivatives_of_the_fused_attention_raise(score: str) -> None:
    case = Case(score=score)
    inputs = attention_inputs(case)
    query = inputs.leaves["query"]
    output = ATTENTION_BACKENDS["sft_fused"].function(arguments(case, inputs))
    (first,) = torch.autograd.grad(output.square().sum(), query, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
