"""What must hold for the models whatever the configuration: padding, symmetries, K, determinism, gradients, memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from allocations import AllocationRecorder
from configurations import parametrize_configurations
from layers import assert_same_sample
from modeling_sft import SFTForPointCloudClassification, SFTPointCloudModel
from modeling_sft.point_cloud import modeling_sft_point_cloud
from random_clouds import (
    Batch,
    move,
    pad,
    permute,
    random_batch,
    random_cloud,
    random_orthogonal,
)
from tiny_models import build, give_all_tokens_one_score

ESTIMATORS = ("gate", "soft", "straight_through")
POOLINGS = ("attention", "mean", "max")
LABELS = torch.tensor([0, 4, 2])


def logits(model: nn.Module, batch: Batch) -> Tensor:
    with torch.no_grad():
        return model(**batch).logits


def states(model: nn.Module, batch: Batch) -> Tensor:
    with torch.no_grad():
        return model(**batch).last_hidden_state


def sampled(model: nn.Module, batch: Batch) -> list[Tensor]:
    with torch.no_grad():
        return list(model(**batch, output_sampled_tokens=True).sampled_tokens)


def first_tokens(scores: Tensor, mask: Tensor, k: int, relation_inputs: Any) -> Tensor:
    """A sampler that takes the first k tokens of each cloud, whatever their scores."""
    index = torch.arange(k).expand(len(mask), 1, k)
    return torch.where(index < mask.sum(-1)[:, None, None], index, -1)


def without_neighbors(batch: Batch) -> Batch:
    return {name: value for name, value in batch.items() if name != "neighbor_index"}


# 1. Padding


def check_padding(model: nn.Module, clouds: list[Batch], tolerance: float) -> None:
    """Each cloud gives the same logits and samples alone and in batches with more and more padding."""
    alone = [pad([cloud], len(cloud["points"])) for cloud in clouds]
    longest = max(len(cloud["points"]) for cloud in clouds)
    for length in (longest, longest + 1, 2 * longest + 3):
        batch = pad(clouds, length)
        together, chosen = logits(model, batch), sampled(model, batch)
        for row, single in enumerate(alone):
            size = len(clouds[row]["points"])
            for one, many in zip(sampled(model, single), chosen, strict=True):
                shifted = torch.where(many[row] >= length, many[row] - length + size, many[row])
                assert_same_sample(one[0], shifted)
            torch.testing.assert_close(together[row], logits(model, single)[0], rtol=0, atol=tolerance)


@parametrize_configurations()
def test_padding_does_not_change_a_cloud(choice: dict[str, Any]) -> None:
    clouds = [random_cloud(size, seed=size) for size in (17, 9, 5, 1)]
    check_padding(build(**choice), clouds, 1e-9)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("inference", ["systematic", "topk"])
@pytest.mark.parametrize("extra", [{}, {"use_normals": False}, {"rotation_invariant": True}, {"local_mixing": False}])
def test_padding_does_not_change_a_cloud_in_float32(pooling: str, inference: str, extra: dict[str, Any]) -> None:
    model = build(dtype=torch.float32, pooling=pooling, sampling_inference=inference, **extra)
    normals = extra.get("use_normals") is not False
    clouds = [random_cloud(size, seed=size, normals=normals, dtype=torch.float32) for size in (30, 17, 9, 5, 1)]
    check_padding(model, clouds, 1e-5)


@pytest.mark.parametrize("inference", ["systematic", "topk"])
def test_padding_does_not_change_the_sample_among_tied_tokens(inference: str) -> None:
    model = build(dtype=torch.float32, sampling_inference=inference, rotation_invariant=True)
    for seed in range(6):
        # Copies of a few points have equal states, up to what batch shapes do to the last bits.
        clouds = []
        for size in (24, 13):
            few = random_cloud(4, seed=seed, dtype=torch.float32)
            clouds.append({name: value[torch.arange(size) % 4] for name, value in few.items()})
        check_padding(model, clouds, 1e-5)


def test_padding_may_hold_anything() -> None:
    model = build()
    batch = random_batch([17, 9], length=20)
    expected = logits(model, batch)
    padding = batch["attention_mask"] == 0
    for name in ("points", "normals"):
        batch[name] = batch[name].masked_fill(padding[..., None], 1e6)
    torch.testing.assert_close(logits(model, batch), expected, rtol=0, atol=1e-10)
    for name in ("points", "normals"):
        batch[name] = batch[name].masked_fill(padding[..., None], torch.nan)
    torch.testing.assert_close(logits(model, batch), expected, rtol=0, atol=1e-10)


def test_neighbours_that_the_model_computes_are_those_of_the_processor() -> None:
    model = build()
    batch = random_batch([17, 9, 3, 1], length=20)
    torch.testing.assert_close(logits(model, without_neighbors(batch)), logits(model, batch), rtol=0, atol=1e-10)


@pytest.mark.parametrize("norm_type", ["layer", "batch"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_padding_does_not_change_training_without_noise(norm_type: str, estimator: str) -> None:
    # Enough slots for all tokens: partners, which are drawn, would differ otherwise.
    results = []
    for length in (17, 29):
        model = build(
            training=True,
            norm_type=norm_type,
            sampling_noise=0.0,
            sampling_estimator=estimator,
            num_sampled_tokens=7 if estimator == "gate" else 17,
        )
        loss = model(**random_batch([17, 9, 5], length=length), labels=LABELS).loss
        loss.backward()
        gradients = {name: p.grad for name, p in model.named_parameters()}
        results.append((loss.detach(), gradients, dict(model.named_buffers())))
    (loss, gradients, buffers), (padded_loss, padded_gradients, padded_buffers) = results
    torch.testing.assert_close(padded_loss, loss, rtol=0, atol=1e-10)
    torch.testing.assert_close(padded_gradients, gradients, rtol=0, atol=1e-9)
    torch.testing.assert_close(padded_buffers, buffers, rtol=0, atol=1e-10)


# 2. Permutation


@parametrize_configurations()
@pytest.mark.parametrize("ties", [False, True])
def test_permuting_the_points_permutes_the_states(choice: dict[str, Any], ties: bool) -> None:
    batch = random_batch([31])
    permutation = torch.randperm(31, generator=torch.Generator().manual_seed(0))
    model = build(SFTPointCloudModel, **choice)
    if ties:
        give_all_tokens_one_score(model)
    expected = states(model, batch)[:, permutation]
    torch.testing.assert_close(states(model, permute(batch, permutation)), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_permuting_the_points_leaves_the_logits(pooling: str) -> None:
    model = build(pooling=pooling)
    batch = random_batch([31])
    permutation = torch.randperm(31, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(logits(model, permute(batch, permutation)), logits(model, batch), rtol=0, atol=1e-9)


# 3. Rotation, reflection, translation


@pytest.mark.parametrize("normals", [True, False], ids=["normals", "no normals"])
@pytest.mark.parametrize("reflection", [True, False], ids=["reflection", "rotation"])
@pytest.mark.parametrize("given_neighbors", [True, False], ids=["given", "computed"])
def test_invariant_mode_ignores_the_pose(normals: bool, reflection: bool, given_neighbors: bool) -> None:
    batch = random_batch([40, 23], normals=normals)
    for seed in range(4):
        moved = move(batch, random_orthogonal(seed, reflection), torch.tensor([1.0, -2.0, 0.5]))
        if not given_neighbors:
            moved = without_neighbors(moved)
        model = build(rotation_invariant=True, seed=seed)
        torch.testing.assert_close(logits(model, moved), logits(model, batch), rtol=0, atol=1e-6)
        plain = build(rotation_invariant=False, seed=seed)
        assert (logits(plain, moved) - logits(plain, batch)).abs().max() > 1e-3

    single = {name: value.float() if value.is_floating_point() else value for name, value in batch.items()}
    model = build(rotation_invariant=True, dtype=torch.float32)
    model.set_sampler(first_tokens)
    moved = move(single, random_orthogonal(0, reflection), torch.tensor([1.0, -2.0, 0.5]))
    torch.testing.assert_close(logits(model, moved), logits(model, single), rtol=0, atol=1e-3)


@parametrize_configurations(full=False)
def test_invariant_mode_ignores_the_pose_in_every_configuration(choice: dict[str, Any]) -> None:
    batch = random_batch([31, 12])
    moved = move(batch, random_orthogonal(1, reflection=False), torch.tensor([1.0, -2.0, 0.5]))
    model = build(rotation_invariant=True, **choice)
    torch.testing.assert_close(logits(model, moved), logits(model, batch), rtol=0, atol=1e-6)


# 4. Sample size


@parametrize_configurations()
def test_as_many_slots_as_tokens_means_attention_to_every_token(choice: dict[str, Any]) -> None:
    extra = choice["num_extra_tokens"]
    batch = random_batch([17, 9])
    model = build(**choice, num_sampled_tokens=17 + extra)
    for training in (False, True):
        model.train(training)
        for chosen in sampled(model, batch):
            for row, size in ((0, 17), (1, 9)):
                expected = [*range(size), *range(17, 17 + extra)]
                assert all(sorted(t for t in one if t >= 0) == expected for one in chosen[row].tolist())
    full = logits(model.eval(), batch)
    model.set_num_sampled_tokens(40)
    torch.testing.assert_close(logits(model, batch), full, rtol=0, atol=1e-10)
    if choice["norm_type"] != "batch":
        model.set_sampling_noise(1.0)
        torch.testing.assert_close(logits(model.train(), batch), full, rtol=0, atol=1e-10)
        model.eval()
    model.set_num_sampled_tokens(5)
    assert (logits(model, batch)[0] - full[0]).abs().max() > 1e-6


# 5. Determinism


@parametrize_configurations(full=False)
def test_evaluation_is_deterministic_and_training_reproducible_under_a_seed(choice: dict[str, Any]) -> None:
    model, batch = build(**choice), random_batch([31, 17])
    assert torch.equal(logits(model, batch), logits(model, batch))

    def train_step(seed: int) -> tuple[Tensor, dict[str, Tensor]]:
        torch.manual_seed(seed)
        again = build(**choice, training=True)
        torch.manual_seed(seed)
        loss = again(**batch, labels=LABELS[:2]).loss
        loss.backward()
        return loss.detach(), {name: p.grad for name, p in again.named_parameters() if p.grad is not None}

    (loss, gradients), (same_loss, same_gradients) = train_step(0), train_step(0)
    assert torch.equal(loss, same_loss)
    torch.testing.assert_close(gradients, same_gradients, rtol=0, atol=0)
    if choice["sampling_noise"] > 0:
        # Little noise may leave one sample as it was.
        assert not all(torch.equal(loss, train_step(seed)[0]) for seed in (1, 2, 3))


def coloured_clouds(count: int, generator: torch.Generator) -> tuple[Batch, Tensor]:
    """Clouds of 48 random points in two colours, labelled by the more frequent one, in float64."""
    labels = torch.randint(0, 2, (count,), generator=generator)
    share = torch.where(labels == 1, 0.7, 0.3)[:, None]
    colour = 2.0 * (torch.rand(count, 48, generator=generator) < share).double() - 1
    points = torch.randn(count, 48, 3, generator=generator, dtype=torch.float64)
    return {"points": points, "point_features": colour[..., None]}, labels


def accuracies_after_training_with_noise(seed: int) -> tuple[float, float, float]:
    """Accuracy of deterministic, of drawn and of top-K samples, after a short training with sampled tokens."""
    torch.manual_seed(seed)
    config = build(
        num_labels=2,
        num_hidden_layers=1,
        num_point_features=1,
        use_normals=False,
        local_mixing=False,
        pooling="max",
        sampling_noise=1.0,
        sampling_estimator="straight_through",
        num_sampled_tokens=12,
        initializer_range=0.02,  # with larger weights top-K loses too little to tell the two apart
    ).config
    # In float64, so that the rounding of a processor does not decide what is learned.
    model = SFTForPointCloudClassification(config).double().train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(60):
        batch, labels = coloured_clouds(32, generator)
        optimiser.zero_grad()
        model(**batch, labels=labels).loss.backward()
        optimiser.step()

    model.eval()
    batch, labels = coloured_clouds(400, generator)

    def accuracy() -> float:
        return float((logits(model, batch).argmax(-1) == labels).float().mean())

    deterministic = accuracy()
    with model.sampled_inference(seed=0):
        drawn = sum(accuracy() for _ in range(3)) / 3
    model.config.sampling_inference = "topk"
    return deterministic, drawn, accuracy()


@pytest.mark.slow
def test_deterministic_accuracy_keeps_up_with_sampled_accuracy_after_training_with_noise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Max pooling cannot count, so the frequency of a colour reaches the logits through the sampled tokens alone; the
    # embeddings would give it away by the mean that they subtract.
    monkeypatch.setattr(modeling_sft_point_cloud, "COMMON_PART", 1.0)
    deterministic, drawn, top_k = torch.tensor([accuracies_after_training_with_noise(seed) for seed in range(3)]).T
    assert (drawn > 0.8).all()
    assert (deterministic >= drawn - 0.03).all()
    gap = deterministic.mean() - top_k.mean()
    assert gap > 0.15, "the task no longer shows the gap that this test guards against"


# 7. Gradients


def gradients_by_name(model: nn.Module, batch: Batch) -> dict[str, float]:
    """Largest absolute gradient of each parameter, -1 without one."""
    model.zero_grad(set_to_none=True)
    model(**batch, labels=LABELS).loss.backward()
    return {name: -1.0 if p.grad is None else float(p.grad.abs().max()) for name, p in model.named_parameters()}


@parametrize_configurations()
def test_gradient_reaches_every_parameter(choice: dict[str, Any]) -> None:
    # The first cloud is taken whole, extra tokens included; the others leave partners over.
    model = build(**choice, training=True, num_sampled_tokens=19)
    torch.manual_seed(0)
    found = gradients_by_name(model, random_batch([17, 23, 30]))
    for name, gradient in found.items():
        # A batch norm takes away whatever is constant over tokens.
        vanishes = choice["norm_type"] == "batch" and name.endswith("bias")
        assert gradient > (-1 if vanishes else 1e-9), name


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("scope", ["layer", "head"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_after_one_step_from_the_start_gradient_reaches_every_parameter(
    pooling: str, scope: str, estimator: str
) -> None:
    torch.manual_seed(0)
    config = build(
        pooling=pooling,
        sampling_scope=scope,
        sampling_estimator=estimator,
        residual_scale_init=0.0,
        num_extra_tokens=2,
        num_sampled_tokens=12,
        num_point_features=2,
        num_categories=3,
    ).config
    model = SFTForPointCloudClassification(config).double().train()
    batch = random_batch([17, 23, 20], num_point_features=2) | {"category": torch.tensor([0, 1, 2])}
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    first = gradients_by_name(model, batch)
    scales = {name: value for name, value in first.items() if name.endswith("residual_scale")}
    assert len(scales) == 2
    assert min(scales.values()) > 0
    assert min(first.values()) >= 0, "every parameter belongs to the graph"
    optimiser.step()
    second = gradients_by_name(model, batch)
    assert {name for name, value in second.items() if value <= 0} == set()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_scorer_is_part_of_the_graph_even_without_effect(estimator: str) -> None:
    model = build(sampling_estimator=estimator, num_sampled_tokens=30, training=True)
    found = gradients_by_name(model, random_batch([17, 9, 5]))
    assert min(found.values()) >= 0


@parametrize_configurations(full=False)
def test_clouds_of_one_point_give_finite_outputs_and_gradients(choice: dict[str, Any]) -> None:
    for sizes, k in (((1, 1, 1), 7), ((1, 17, 9), 1)):
        model = build(**choice, training=True, num_sampled_tokens=k)
        assert all(0 <= value < torch.inf for value in gradients_by_name(model, random_batch(sizes)).values())
        assert torch.isfinite(logits(model.eval(), random_batch(sizes))).all()


@pytest.mark.parametrize("magnitude", [100.0, -100.0])
@parametrize_configurations(full=False)
def test_extreme_scores_give_finite_outputs_and_gradients(choice: dict[str, Any], magnitude: float) -> None:
    model = build(**choice, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("sampler.weight", "q_proj.weight", "c_proj.weight", "relation.scale_weight")):
                parameter.mul_(abs(magnitude))
            elif name.endswith(("sampler.bias", "relation.bias_weight")):
                parameter.fill_(magnitude)
    batch = random_batch([17, 9, 5], dtype=torch.float32)
    assert torch.isfinite(logits(model, batch)).all()
    found = gradients_by_name(model.train(), batch)
    assert all(-1 <= value < torch.inf for value in found.values()), found


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("inference", ["systematic", "topk"])
def test_identical_points_give_finite_outputs_and_the_lowest_indices(estimator: str, inference: str) -> None:
    model = build(
        sampling_estimator=estimator, sampling_inference=inference, num_hidden_layers=1, rotation_invariant=True
    )
    batch = random_batch([20, 9, 3])
    batch["points"] = torch.ones_like(batch["points"]) * batch["attention_mask"][..., None]
    batch["normals"] = torch.zeros_like(batch["normals"])
    assert torch.isfinite(logits(model, batch)).all()
    if inference == "topk":
        assert sampled(model, batch)[0][0, 0].sort().values.tolist() == list(range(7))
    assert all(0 <= value < torch.inf for value in gradients_by_name(model.train(), batch).values())


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize(("dropout", "norm_type"), [(0.0, "layer"), (0.3, "layer"), (0.0, "batch")])
def test_gradient_checkpointing_gives_the_same_gradients(estimator: str, dropout: float, norm_type: str) -> None:
    results: list[list[dict[str, Tensor]]] = []
    for checkpointing in (False, True):
        model = build(
            training=True,
            norm_type=norm_type,
            sampling_estimator=estimator,
            sampling_noise=1.0,
            num_sampled_tokens_range=[3, 9],
            num_hidden_layers=3,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            drop_path_prob=dropout,
        )
        if checkpointing:
            getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
        calls: list[Any] = []
        model.sft.encoder.layers[0].attention.register_forward_hook(lambda *args, calls=calls: calls.append(args))
        torch.manual_seed(5)
        gradients: list[dict[str, Tensor]] = []
        for _ in range(3):
            model.zero_grad()
            model(**random_batch([17, 23, 20]), labels=LABELS).loss.backward()
            gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
        assert len(calls) == (6 if checkpointing else 3)
        results.append(gradients)
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=1e-12)


# 8. Memory


def training_memory(length: int, k: int = 32, given_neighbors: bool = True, **changes: Any) -> AllocationRecorder:
    """Records one training step on a single cloud of `length` points in float32."""
    fields = {"hidden_size": 64, "num_attention_heads": 2, "score_head_dim": None, "num_hidden_layers": 1}
    model = build(dtype=torch.float32, training=True, num_sampled_tokens=k, **(fields | changes))
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(1, length, 3, generator=generator)
    batch = {"points": points, "normals": torch.nn.functional.normalize(points, dim=-1)}
    if given_neighbors:
        offsets = torch.arange(1, 5)
        batch["neighbor_index"] = ((torch.arange(length)[:, None] + offsets) % length)[None]
    model(**batch, labels=LABELS[:1]).loss.backward()
    model.zero_grad()
    with AllocationRecorder() as recorder:
        model(**batch, labels=LABELS[:1]).loss.backward()
    return recorder


@pytest.mark.parametrize("length", [512, 1024])
@pytest.mark.parametrize("score", ["maxout", "dot", "signed_min"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("scope", ["layer", "head"])
def test_memory_grows_linearly_and_no_tensor_is_quadratic(length: int, score: str, estimator: str, scope: str) -> None:
    changes = {"attention_score": score, "sampling_estimator": estimator, "sampling_scope": scope}
    once, twice = (training_memory(n, **changes) for n in (length, 2 * length))
    for recorder, n in ((once, length), (twice, 2 * length)):
        largest = recorder.largest // 4
        assert largest < n * n, recorder.by_operation
        assert largest < n * 32 * 32, recorder.by_operation
    assert twice.peak <= 2.02 * once.peak


def test_neighbours_are_searched_in_blocks() -> None:
    once, twice = (training_memory(n, given_neighbors=False) for n in (4096, 8192))
    for recorder, n in ((once, 4096), (twice, 8192)):
        assert recorder.largest // 4 < n * n / 4, recorder.by_operation
    assert twice.peak <= 2.1 * once.peak


def test_evaluation_memory_does_not_grow_with_depth() -> None:
    def peak(num_hidden_layers: int) -> int:
        model = build(dtype=torch.float32, num_hidden_layers=num_hidden_layers)
        batch = random_batch([400], dtype=torch.float32)
        logits(model, batch)
        with AllocationRecorder() as recorder:
            logits(model, batch)
        return recorder.peak

    assert peak(6) <= 1.05 * peak(2)
