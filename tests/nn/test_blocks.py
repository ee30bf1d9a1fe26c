"""Tokens in blocks: the same results as all at once, in less memory."""

import pytest
import torch

from allocations import AllocationRecorder
from modeling_sft import SFTPointCloudModel
from modeling_sft.nn import feed_forward
from modeling_sft.nn.blocks import in_blocks
from modeling_sft.point_cloud import geometry as geometry_sft
from modeling_sft.point_cloud import local_mixing
from tiny_models import build

CLOUD_SIZES = (211, 150)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks that do not divide the clouds: 7 points in geometry and edge step, 100 tokens in the feed-forward."""
    # 2 clouds, 4 neighbours, width 24.
    monkeypatch.setattr(local_mixing, "PAIR_ELEMENTS", 7 * 2 * 4 * 24)
    monkeypatch.setattr(geometry_sft, "PAIR_ELEMENTS", 7 * 2 * 4 * 4)
    monkeypatch.setattr(feed_forward, "TOKENS_AT_A_TIME", 100)


def two_clouds(length=CLOUD_SIZES[0], dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    points, normals = (torch.randn(2, length, 3, generator=generator, dtype=dtype) for _ in range(2))
    mask = torch.arange(length) < torch.tensor(CLOUD_SIZES)[:, None]
    neighbors = torch.randint(CLOUD_SIZES[1], (2, length, 4), generator=generator)
    normals = torch.nn.functional.normalize(normals, dim=-1)
    return {"points": points, "normals": normals, "neighbor_index": neighbors, "attention_mask": mask.long()}


@pytest.mark.parametrize("enabled", [False, True])
@pytest.mark.parametrize("rows", [1, 3, 6, 7, 8])
def test_blocks_are_joined_in_order(rows, enabled):
    x, lengths = torch.randn(2, 7, 5), []

    def double(part):
        lengths.append(part.stop - part.start)
        return 2 * x[:, part]

    with torch.set_grad_enabled(enabled):
        assert torch.equal(in_blocks(double, 7, rows), 2 * x)
    assert sum(lengths) == 7 and max(lengths) == min(rows, 7)


def test_gradients_flow_through_blocks():
    x = torch.randn(2, 7, 5, requires_grad=True)
    (gradient,) = torch.autograd.grad(in_blocks(lambda part: x[:, part].square(), 7, 3).sum(), x)
    assert torch.equal(gradient, 2 * x)


def test_blocks_and_result_do_not_exist_twice():
    x = torch.randn(1, 1000, 8)
    with torch.no_grad(), AllocationRecorder() as recorder:
        in_blocks(lambda part: x[:, part] * 2, 1000, 10)
    assert recorder.peak <= 1.05 * x.nbytes


@pytest.mark.parametrize("backend", ["sft_fused", "eager"])
@pytest.mark.usefixtures("small_blocks")
def test_states_of_all_points_do_not_depend_on_gradients_being_wanted(backend):
    model = build(SFTPointCloudModel)
    model.set_attn_implementation(backend)
    batch = two_clouds()
    real = batch["attention_mask"].bool()
    with_gradients = model(**batch).last_hidden_state
    with torch.no_grad():
        without = model(**batch).last_hidden_state
    assert with_gradients.requires_grad and without.shape == (2, 211, 24)
    torch.testing.assert_close(without[real], with_gradients[real].detach(), rtol=0, atol=1e-12)


def test_states_do_not_depend_on_blocks(request):
    model, batch = build(SFTPointCloudModel), two_clouds()
    with torch.no_grad():
        whole = model(**batch).last_hidden_state
        request.getfixturevalue("small_blocks")
        in_parts = model(**batch).last_hidden_state
    torch.testing.assert_close(in_parts, whole, rtol=0, atol=1e-12)


def test_inference_holds_few_states_of_all_points(monkeypatch):
    fields = {"hidden_size": 64, "num_attention_heads": 4, "score_head_dim": 8, "intermediate_size": 512}
    model = build(SFTPointCloudModel, dtype=torch.float32, num_hidden_layers=3, num_sampled_tokens=16, **fields)
    monkeypatch.setattr(local_mixing, "PAIR_ELEMENTS", 2**17)
    batch = two_clouds(length=6000, dtype=torch.float32) | {"attention_mask": torch.ones(2, 6000)}
    with torch.no_grad():
        with AllocationRecorder() as recorder:
            states = model(**batch).last_hidden_state
    assert recorder.peak <= 7 * states.nbytes, recorder.by_operation
