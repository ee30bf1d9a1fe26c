"""The sampler: selection rules, estimators, and the controls that a model offers over them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import reference
from configurations import tiny_config
from modeling_sft import SFTPointCloudModel
from modeling_sft.point_cloud.selectors import farthest_point_selector
from modeling_sft.sampling import selection
from modeling_sft.sampling.estimators import mix_pairs, uniform_partners
from modeling_sft.sampling.sample import Sample
from modeling_sft.sampling.sampler import SFTSampler, random_selector
from modeling_sft.sampling.selection import systematic_selection, topk_selection
from random_clouds import random_batch
from tiny_models import build, randomise


def systematic(
    scores: np.ndarray,
    k: int,
    noise: float = 0.25,
    mask: np.ndarray | None = None,
    content: np.ndarray | None = None,
) -> list[int]:
    """Tokens that the package selects for one row of float64 scores; asserts that no unused slot lies between them."""
    mask = np.ones(len(scores), bool) if mask is None else mask
    row = torch.tensor(scores)[None, None]
    told_apart = torch.zeros_like(row) if content is None else torch.tensor(content)[None, None]
    picked = systematic_selection(row, told_apart, torch.tensor(mask)[None], k, noise)[0, 0]
    expected = min(k, int(mask.sum()))
    assert picked.shape == (k,)
    assert (picked >= 0).sum() == expected
    return picked[picked >= 0].tolist()


def sampler(training: bool = True, seed: int = 0, **changes: object) -> SFTSampler:
    torch.manual_seed(seed)
    return randomise(build_sampler(**changes), seed).double().train(training)


def build_sampler(**changes: object) -> SFTSampler:
    return SFTPointCloudModel(tiny_config(num_hidden_layers=1, **changes)).encoder.layers[0].attention.sampler


def states(batch: int, length: int, seed: int = 0) -> Tensor:
    return torch.randn(batch, length, 24, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scores_of_kind(kind: str, n: int, k: int) -> np.ndarray:
    generator = np.random.default_rng(n)
    if kind == "equal":
        return np.zeros(n)
    if kind == "two groups":
        return np.where(generator.permutation(n) < n // 3, 1.0, -0.5)
    if kind == "few far above":
        scores = generator.normal(size=n)
        scores[generator.choice(n, max(k // 2, 1), replace=False)] += 50
        return scores
    return generator.normal(size=n) * {"narrow": 0.05, "normal": 1.0, "wide": 30.0}[kind]


KINDS = ("equal", "two groups", "few far above", "narrow", "normal", "wide")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("noise", [0.05, 0.25, 1.0])
def test_systematic_selection_equals_the_reference_for_every_size(kind: str, noise: float) -> None:
    n = 23
    compared = 0
    for k in range(1, n):
        scores = scores_of_kind(kind, n, k)
        picked = systematic(scores, k, noise)
        expected, margin = reference.systematic_positions(scores, noise, k, np.ones(n, bool))
        assert len(set(picked)) == k
        if margin > 1e-9:
            assert picked == expected.tolist()
            compared += 1
    assert compared > 0


@settings(max_examples=150, deadline=None)
@given(
    scores=st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=40),
    k=st.integers(1, 45),
    noise=st.sampled_from([0.01, 0.25, 1.0, 4.0]),
    padding=st.integers(0, 9),
)
def test_systematic_selection_of_arbitrary_scores(scores: list[float], k: int, noise: float, padding: int) -> None:
    row = np.array(scores + [1e4] * padding)
    mask = np.arange(len(row)) < len(scores)
    picked = systematic(row, k, noise, mask)
    expected, margin = reference.systematic_positions(row, noise, k, mask)
    assert len(set(picked)) == len(picked)
    assert all(mask[i] for i in picked)
    if margin > 1e-9:
        assert sorted(picked) == sorted(expected.tolist())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_systematic_selection_follows_the_inclusion_probabilities(dtype: torch.dtype) -> None:
    generator = np.random.default_rng(0)
    for n, k, noise in ((50, 1, 0.25), (50, 20, 0.25), (300, 64, 1.0), (1000, 7, 0.5)):
        scores = generator.normal(size=n)
        mask = torch.ones(1, n, dtype=torch.bool)
        row = torch.tensor(scores, dtype=dtype)[None, None]
        picked = systematic_selection(row, torch.zeros_like(row), mask, k, noise)[0, 0]
        order = reference.selection_order(scores, np.ones(n, bool))
        pi = reference.inclusion_probabilities(reference.rounded_scores(scores)[order], noise, k)
        taken = np.isin(order, picked.numpy())
        assert np.abs(np.cumsum(taken) - np.cumsum(pi)).max() <= 0.5 + 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_systematic_selection_does_not_depend_on_padding_or_neighbours_in_the_batch(
    kind: str, dtype: torch.dtype
) -> None:
    n = 31
    for k in (1, 5, 16, 30, 31, 40):
        scores = torch.tensor(scores_of_kind(kind, n, k), dtype=dtype)
        content = torch.randn(2, 1, 3 * n, generator=torch.Generator().manual_seed(n), dtype=dtype)
        every = torch.ones(1, n, dtype=torch.bool)
        alone = systematic_selection(scores[None, None], content[:1, :, :n], every, k, 0.25)[0, 0]
        padded = torch.zeros(2, 1, 3 * n, dtype=dtype)
        padded[0, 0, :n] = scores
        padded[1] = torch.randn(3 * n, generator=torch.Generator().manual_seed(k), dtype=dtype)
        mask = torch.arange(3 * n)[None] < torch.tensor([[n], [3 * n]])
        assert torch.equal(systematic_selection(padded, content, mask, k, 0.25)[0, 0], alone)


def test_ties_go_by_content_and_then_to_the_lower_index() -> None:
    scores = torch.tensor([[[0.0, 1.0, 1.0 + 2.0**-14, 1.0, -1.0, 1.0]]])
    mask, same = torch.ones(1, 6, dtype=torch.bool), torch.zeros(1, 1, 6)
    assert topk_selection(scores, same, mask, 3)[0, 0].tolist() == [1, 2, 3]
    assert systematic_selection(same, same, mask, 2, 1.0)[0, 0].tolist() == [1, 4]
    content = torch.tensor([[[9.0, -1.0, 0.5, 2.0, 9.0, 0.5 + 2.0**-18]]])
    assert topk_selection(scores, content, mask, 3)[0, 0].tolist() == [3, 2, 5]
    assert systematic_selection(same, content, mask, 2, 1.0)[0, 0].tolist() == [4, 5]
    # Contents are told apart on a finer grid than scores.
    content = torch.tensor([[[9.0, 0.5, 0.5, 0.5 + 2.0**-14, 9.0, 0.5]]])
    assert topk_selection(scores, content, mask, 1)[0, 0].tolist() == [3]


@settings(max_examples=100, deadline=None)
@given(
    scores=st.lists(st.sampled_from([0.0, 1e-5, 0.3, 2.0]), min_size=2, max_size=30),
    k=st.integers(1, 12),
    seed=st.integers(0, 10**6),
    rule=st.sampled_from(["systematic", "topk"]),
)
def test_permuted_tokens_of_equal_scores_permute_the_selection(
    scores: list[float], k: int, seed: int, rule: str
) -> None:
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(scores))
    rows = torch.tensor([scores, [scores[i] for i in order]])[:, None]
    content = torch.tensor(generator.permutation(np.linspace(-3, 3, len(scores))))
    content = torch.stack([content, content[order]])[:, None]
    mask = torch.ones(2, len(scores), dtype=torch.bool)
    arguments = (rows, content, mask, k)
    picked = systematic_selection(*arguments, 0.5) if rule == "systematic" else topk_selection(*arguments)
    plain, permuted = picked[:, 0].tolist()
    assert [order[i] if i >= 0 else -1 for i in permuted] == plain


def test_scores_far_apart_are_still_ordered_by_score() -> None:
    scores = torch.tensor([[[-400.0, 0.0, -399.0, 600.0, 599.0]]])
    content, mask = torch.tensor([[[4.0, 0.0, -4.0, -9.0, 9.0]]]), torch.ones(1, 5, dtype=torch.bool)
    assert topk_selection(scores, content, mask, 5)[0, 0].tolist() == [3, 4, 1, 2, 0]


def test_longer_rows_than_the_sort_keys_hold_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "MAX_LENGTH", 6)
    row = torch.zeros(1, 1, 6)
    with pytest.raises(ValueError, match="A row has 6 tokens"):
        topk_selection(row, row, torch.ones(1, 6, dtype=torch.bool), 2)


@pytest.mark.parametrize("kind", KINDS)
def test_topk_selection_equals_the_reference(kind: str) -> None:
    mask = np.arange(29) % 7 != 2
    for k in (1, 4, 24, 25, 29, 33):
        scores = scores_of_kind(kind, 29, k)
        content = np.random.default_rng(k).normal(size=29)
        row, told_apart = torch.tensor(scores)[None, None], torch.tensor(content)[None, None]
        picked = topk_selection(row, told_apart, torch.tensor(mask)[None], k)[0, 0]
        assert picked.shape == (k,)
        assert picked[picked >= 0].tolist() == reference.topk_selection(scores, k, mask, content).tolist()


@pytest.mark.parametrize("estimator", ["gate", "soft", "straight_through"])
@pytest.mark.parametrize("scope", ["layer", "head"])
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_a_random_sample_has_distinct_real_tokens_and_distinct_unselected_partners(
    estimator: str, scope: str, noise: float
) -> None:
    module = sampler(sampling_estimator=estimator, sampling_scope=scope, sampling_noise=noise, num_extra_tokens=2)
    sizes = (1, 3, 8, 14, 20)
    mask = torch.arange(20)[None] < torch.tensor(sizes)[:, None]
    for k in (1, 7, 25):
        sample, scores = module(states(len(sizes), 20), mask, k)
        samples = 3 if scope == "head" else 1
        assert sample.indices.shape == sample.valid.shape == (len(sizes), samples, k)
        assert scores.shape == (len(sizes), samples, 22)
        assert torch.equal(sample.valid, sample.indices >= 0)
        for row, size in enumerate(sizes):
            candidates = {*range(size), 20, 21}
            for head in range(samples):
                chosen = [t for t in sample.indices[row, head].tolist() if t >= 0]
                assert len(set(chosen)) == len(chosen) == min(k, size + 2)
                assert candidates.issuperset(chosen)
                if estimator == "gate":
                    assert sample.partners is None
                    continue
                partners = sample.partners[row, head]
                assert (partners[~sample.valid[row, head]] == -1).all()
                paired = [p for p in partners.tolist() if p >= 0]
                assert len(set(paired)) == len(paired) == min(len(chosen), size + 2 - len(chosen))
                assert (candidates - set(chosen)).issuperset(paired)
                assert (sample.weights[row, head][partners < 0] == 1).all()


def test_partners_are_uniform_over_the_unselected_tokens() -> None:
    torch.manual_seed(0)
    selected = torch.tensor([[[0, 4, -1]]]).expand(4000, 1, 3)
    mask = torch.tensor([[True] * 8 + [False] * 2]).expand(4000, 10)
    frequency = torch.bincount(uniform_partners(selected, mask, 3).flatten(), minlength=10) / 4000
    expected = torch.tensor([0, 0.5, 0.5, 0.5, 0, 0.5, 0.5, 0.5, 0, 0])
    assert (frequency - expected).abs().max() < 0.04


@pytest.mark.parametrize("noise", [0.25, 1.0])
def test_random_sampling_matches_the_inclusion_probabilities_on_average(noise: float) -> None:
    module = sampler(sampling_noise=noise)
    tokens = states(1, 30)
    torch.manual_seed(1)
    sample, scores = module(tokens.expand(4000, -1, -1), torch.ones(4000, 30, dtype=torch.bool), 8)
    frequency = np.bincount(sample.indices.flatten().numpy(), minlength=30) / 4000
    row = scores[0, 0].detach().numpy()
    order = np.argsort(-row)
    pi = reference.inclusion_probabilities(row[order], noise, 8)
    assert np.abs(frequency[order] - pi).mean() < 0.03
    assert np.abs(frequency[order] - pi).max() < 0.1
    assert frequency.std() > 0.05


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("inference", ["systematic", "topk"])
def test_a_row_with_no_more_tokens_than_slots_takes_all(training: bool, inference: str) -> None:
    module = sampler(training, sampling_inference=inference)
    mask = torch.arange(9)[None] < torch.tensor([[7], [3], [9]])
    sample, _ = module(states(3, 9), mask, 7)
    assert sorted(sample.indices[0, 0].tolist()) == list(range(7))
    assert sorted(sample.indices[1, 0].tolist()) == [-1] * 4 + [0, 1, 2]
    assert sample.valid.sum(-1).flatten().tolist() == [7, 3, 7]


def test_importance_scores_equal_the_reference() -> None:
    for scope in ("layer", "head"):
        module = sampler(sampling_scope=scope, importance_scale=3.0, num_extra_tokens=2)
        x = states(2, 9)
        expected = []
        for row in x:
            per_sample = []
            for s in range(len(module.weight)):
                tokens = torch.cat([row, module.extra_tokens[s]])
                per_sample.append(
                    reference.sampler_logits(tokens, module.weight[s], module.bias[s], 3.0, module.config.norm_eps)
                )
            expected.append(torch.stack(per_sample))
        mask = torch.ones(2, 9, dtype=torch.bool)
        torch.testing.assert_close(module(x, mask, 4)[1], torch.stack(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_inference_picks_what_the_reference_picks(ties: bool) -> None:
    mask = torch.arange(40)[None] < torch.tensor([[40], [25]])
    for inference, noise in (("systematic", 0.5), ("topk", 0.25), (None, 0.5), (None, 0.0)):
        module = sampler(training=False, sampling_inference=inference, sampling_noise=noise, num_extra_tokens=2)
        if ties:
            torch.nn.init.zeros_(module.weight)
        x = states(2, 40)
        sample, scores = module(x, mask, 7)
        for row in range(2):
            values = scores[row, 0].detach().numpy()
            tokens = torch.cat([x[row], module.extra_tokens[0].detach()])
            content = reference.content(tokens, module.config.norm_eps).numpy()
            real = np.concatenate([mask[row].numpy(), [True, True]])
            if inference == "topk" or noise == 0:
                expected = reference.topk_selection(values, 7, real, content)
            else:
                expected = reference.systematic_selection(values, noise, 7, real, content)
            assert sample.indices[row, 0].tolist() == expected.tolist()


@pytest.mark.parametrize("estimator", ["gate", "soft", "straight_through"])
def test_mixed_rows_and_their_gradients_equal_the_reference(estimator: str) -> None:
    module = sampler(sampling_estimator=estimator, sampling_noise=0.0, sampling_temperature=0.5)
    x = states(1, 11).requires_grad_()
    sample, scores = module(x, torch.ones(1, 11, dtype=torch.bool), 7)
    rows = x[0, sample.indices[0]][None]
    partners = None if sample.partners is None else x[0, sample.partners[0].clamp(min=0)][None]
    mixed = mix_pairs(rows, partners, sample, estimator)[0, 0]
    s = scores[0, 0]
    own = None if sample.partners is None else sample.partners[0, 0]
    expected, weights = reference.mixed_tokens(estimator, x[0], sample.indices[0, 0], own, s, s, 0.5, training=True)
    torch.testing.assert_close(mixed, expected, rtol=0, atol=1e-12)
    if estimator == "straight_through":
        assert torch.equal(mixed, rows[0, 0])
    if estimator != "gate":
        torch.testing.assert_close(sample.weights[0, 0], weights, rtol=0, atol=1e-12)
    direction = states(1, 7, seed=3)[0]
    inputs = [x, *module.parameters()]
    found = torch.autograd.grad((mixed * direction).sum(), inputs, retain_graph=True)
    wanted = torch.autograd.grad((expected * direction).sum(), inputs)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("estimator", ["soft", "straight_through"])
def test_gradient_reaches_both_members_of_a_pair(estimator: str) -> None:
    module = sampler(sampling_estimator=estimator, sampling_noise=1.0)
    x = states(1, 14).requires_grad_()
    sample, _ = module(x, torch.ones(1, 14, dtype=torch.bool), 7)
    rows, partners = x[0, sample.indices[0]][None], x[0, sample.partners[0]][None]
    mix_pairs(rows, partners, sample._replace(weights=sample.weights.detach()), estimator).sum().backward()
    weights = sample.weights[0, 0].detach()
    torch.testing.assert_close(x.grad[0, sample.indices[0, 0], 0], weights)
    torch.testing.assert_close(x.grad[0, sample.partners[0, 0], 0], 1 - weights)


@pytest.mark.parametrize("logit", [-2000.0, -20.0, 0.0, 20.0, 2000.0])
def test_soft_weights_and_gradients_are_finite_for_extreme_scores(logit: float) -> None:
    module = sampler(sampling_estimator="soft", sampling_noise=0.0)
    with torch.no_grad():
        module.bias.fill_(logit)
    sample, scores = module(states(1, 14), torch.ones(1, 14, dtype=torch.bool), 7)
    z = scores[0, 0].detach()
    chosen, partner = z[sample.indices[0, 0]], z[sample.partners[0, 0]]
    if logit < -100:
        expected = torch.sigmoid(chosen - partner)
    else:
        expected = torch.nn.functional.softplus(chosen) / (
            torch.nn.functional.softplus(chosen) + torch.nn.functional.softplus(partner)
        )
    torch.testing.assert_close(sample.weights[0, 0], expected, rtol=1e-7, atol=1e-12)
    sample.weights.sum().backward()
    assert torch.isfinite(module.weight.grad).all()
    assert torch.isfinite(module.bias.grad).all()


def test_inference_neither_mixes_nor_draws() -> None:
    for estimator in ("soft", "straight_through"):
        module = sampler(training=False, sampling_estimator=estimator)
        state = torch.get_rng_state()
        sample, _ = module(states(2, 14), torch.ones(2, 14, dtype=torch.bool), 7)
        assert sample.partners is None
        assert torch.equal(torch.get_rng_state(), state)
        rows = torch.randn(2, 1, 7, 24)
        torch.testing.assert_close(mix_pairs(rows, None, sample, estimator), rows)


def test_the_gate_acts_in_training_and_inference_and_when_all_tokens_are_taken() -> None:
    for training in (True, False):
        module = sampler(training)
        sample, scores = module(states(1, 7), torch.ones(1, 7, dtype=torch.bool), 7)
        gates = 2 * torch.sigmoid(scores[0, 0, sample.indices[0, 0]])
        torch.testing.assert_close(sample.weights[0, 0], gates)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)],
)
def test_scores_have_at_least_single_precision(dtype: torch.dtype, expected: torch.dtype) -> None:
    model, batch = build(dtype=dtype), random_batch([20, 13], dtype=torch.float32)
    out = model(**batch, output_importance_scores=True)
    assert {scores.dtype for scores in out.importance_scores} == {expected}
    assert out.logits.dtype == dtype
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = build(dtype=torch.float32)(**batch, output_importance_scores=True)
    assert {scores.dtype for scores in out.importance_scores} == {torch.float32}
    first = out.importance_scores[0][0].flatten()
    assert not torch.equal(first, first.bfloat16().float()), "computed in half precision"


def test_straight_through_has_no_bias() -> None:
    assert sampler(sampling_estimator="straight_through").bias is None
    assert sampler(sampling_estimator="soft").bias is not None


def capture_warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    from modeling_sft.sampling import sampler as sampling_sft

    messages: list[str] = []
    sampling_sft.logger.warning_once.cache_clear()
    monkeypatch.setattr(sampling_sft.logger, "warning", lambda message, *args, **kwargs: messages.append(message))
    return messages


def test_topk_with_full_noise_warns_once(monkeypatch: pytest.MonkeyPatch) -> None:
    messages = capture_warnings(monkeypatch)
    model = build(sampling_noise=1.0, sampling_inference="topk")
    for _ in range(2):
        model(**random_batch([20]))
    assert len(messages) == 1
    assert "systematic" in messages[0]


@pytest.mark.parametrize("changes", [{"sampling_noise": 1.0}, {"sampling_noise": 0.0, "sampling_inference": "topk"}])
def test_matching_noise_and_selection_do_not_warn(changes: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    messages = capture_warnings(monkeypatch)
    build(**changes)(**random_batch([20]))
    assert messages == []


def sampled(model: torch.nn.Module, batch: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return torch.stack(model(**batch, output_sampled_tokens=True).sampled_tokens)


@pytest.mark.parametrize("estimator", ["gate", "soft", "straight_through"])
def test_another_sampler_replaces_the_learned_one_until_it_is_taken_off(estimator: str) -> None:
    model = build(sampling_estimator=estimator)
    batch = random_batch([20, 13])
    learned = sampled(model, batch)

    def last_tokens(scores: Tensor, mask: Tensor, k: int, relation_inputs: object) -> Tensor:
        last = mask.sum(-1, keepdim=True) - 1 - torch.arange(k)
        return last[:, None].clone()

    model.set_sampler(last_tokens)
    expected = torch.tensor([[19, 18, 17, 16, 15, 14, 13], [12, 11, 10, 9, 8, 7, 6]])
    for training in (False, True):
        model.train(training)
        chosen = sampled(model, batch)
        assert torch.equal(chosen.squeeze(2), expected.expand(2, 2, 7))
    model.train()(**batch, labels=torch.tensor([0, 1])).loss.backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if ".sampler." in name)
    model.eval().set_sampler(None)
    assert torch.equal(sampled(model, batch), learned)


def test_a_sampler_of_wrong_shape_or_range_is_refused() -> None:
    model = build()
    batch = random_batch([20])
    model.set_sampler(lambda scores, mask, k, relation_inputs: torch.zeros(1, k, dtype=torch.long))
    with pytest.raises(ValueError, match="set_sampler"):
        model(**batch)
    model.set_sampler(lambda scores, mask, k, relation_inputs: torch.full((1, 1, k), 20))
    with pytest.raises(ValueError, match="set_sampler"):
        model(**batch)
    model.set_sampler(lambda scores, mask, k, relation_inputs: torch.full((len(scores), 1, k), 8))
    with pytest.raises(ValueError, match="padded token"):
        model(**random_batch([9, 8]))


def test_the_random_sampler_draws_real_tokens_without_replacement() -> None:
    model = build()
    model.set_sampler(random_selector)
    torch.manual_seed(0)
    first, second = (sampled(model, random_batch([20, 13])) for _ in range(2))
    assert not torch.equal(first, second)
    assert (first[:, 1] < 13).all()
    assert all(len(set(row)) == 7 for row in first.flatten(0, 2).tolist())


def test_farthest_point_sampling_equals_the_plain_algorithm() -> None:
    model = build()
    model.set_sampler(farthest_point_selector)
    batch = random_batch([20, 5])
    chosen = sampled(model, batch)
    points = batch["points"][0]
    expected = [int((points - points.mean(0)).norm(dim=-1).argmax())]
    while len(expected) < 7:
        expected.append(int(torch.cdist(points, points[expected]).min(-1).values.argmax()))
    assert chosen[0, 0, 0].tolist() == expected
    assert sorted(chosen[0, 1, 0].tolist()) == [-1, -1, 0, 1, 2, 3, 4]


def test_sampled_inference_is_reproducible_and_leaves_the_global_generator_alone() -> None:
    model = build(sampling_noise=1.0)
    batch = random_batch([30])
    deterministic = sampled(model, batch)
    state = torch.get_rng_state()
    with model.sampled_inference(seed=0):
        first, again = sampled(model, batch), sampled(model, batch)
    assert torch.equal(torch.get_rng_state(), state)
    with model.sampled_inference(seed=0):
        assert torch.equal(sampled(model, batch), first)
    with model.sampled_inference(seed=1):
        assert not torch.equal(sampled(model, batch), first)
    assert not torch.equal(first, again)
    assert torch.equal(sampled(model, batch), deterministic)


def test_sampled_inference_ends_after_an_error() -> None:
    model = build(sampling_noise=1.0)
    batch = random_batch([30])
    deterministic = sampled(model, batch)
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="stop"), model.sampled_inference(seed=0):
        raise RuntimeError("stop")
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(sampled(model, batch), deterministic)


@pytest.mark.parametrize("k", [0, -1, 2.5, "7"])
def test_set_num_sampled_tokens_refuses_what_is_not_a_positive_integer(k: object) -> None:
    model = build()
    with pytest.raises((ValueError, TypeError), match="num_sampled_tokens"):
        model.set_num_sampled_tokens(k)
    assert model.config.num_sampled_tokens == 7


def test_set_num_sampled_tokens_acts_and_writes_the_configuration() -> None:
    model = build()
    model.set_num_sampled_tokens(4)
    assert model.config.num_sampled_tokens == 4
    assert sampled(model, random_batch([20])).shape == (2, 1, 1, 4)


def test_set_sampling_noise_acts_and_writes_the_configuration() -> None:
    model = build(sampling_noise=1.0)
    batch = random_batch([30])
    noisy = sampled(model, batch)
    model.set_sampling_noise(0.0)
    assert model.config.sampling_noise == 0
    topk = sampled(model, batch)
    assert not torch.equal(topk, noisy)
    model.config.sampling_inference = "topk"
    model.set_sampling_noise(0.25)
    assert torch.equal(sampled(model, batch), topk)
    with pytest.raises(ValueError, match="noise"):
        model.set_sampling_noise(-1.0)


def test_the_number_of_sampled_tokens_is_drawn_from_its_range_in_training_only() -> None:
    model = build(training=True, num_sampled_tokens_range=[2, 5])
    batch = random_batch([20])
    torch.manual_seed(0)
    sizes = [sampled(model, batch).shape for _ in range(40)]
    assert {shape[-1] for shape in sizes} == {2, 3, 4, 5}
    assert sampled(model.eval(), batch).shape[-1] == 7


def test_a_sample_is_a_plain_tuple_of_tensors() -> None:
    assert Sample._fields == ("indices", "valid", "weights", "partners", "extra_tokens")
