"""The theory of arXiv 2408.05822, checked on the real layers: rank through depth, pseudoconvexity in the weights.

A differentiable f is pseudoconvex if grad f(a).(b - a) >= 0 implies f(b) >= f(a), and pseudolinear if -f is as well.
Every output channel of a layer that attends to all tokens has, for token i, the form

    rest + sum_j f(e_ij) v_j / (sum_l f(e_il) + leak + eps),

so with a linear feed-forward and norms of fixed statistics (batch norm in evaluation) it is affine in the value,
output and feed-forward weights (each alone), pseudoconvex or pseudoconcave in the leak weights by the sign of the sum,
and, where each max and each relu keeps its piece, linear-fractional in the query and key weights together. GELU is
pseudoconvex in one variable: of a pseudolinear function it is pseudoconvex, but a sum of such units need not be.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, vmap

from modeling_sft import SFTPointCloudConfig, SFTPointCloudModel
from modeling_sft.attention.scores import maxout_score
from modeling_sft.encoder.encoder import SFTLayer
from scripts.figures import ATTENTIONS, STACKS, effective_rank, main, ranks_through_layers

TOKENS, WIDTH, PAIRS = 5, 6, 400
SEEDS = (0, 1, 2)
VALUE = ("attention.v_proj.weight",)
OUTPUT = ("attention.o_proj.weight", "attention.o_proj.bias")
UP = ("feed_forward.up_proj.weight", "feed_forward.up_proj.bias")
DOWN = ("feed_forward.down_proj.weight", "feed_forward.down_proj.bias")
LEAK = ("attention.c_proj.weight",)
QUERY_KEY = ("attention.q_proj.weight", "attention.q_proj.bias", "attention.k_proj.weight")

Weights = dict[str, Tensor]


def build_layer(seed: int, **choice: Any) -> SFTLayer:
    """A layer of one head that attends to all tokens, every parameter and statistic off its initial value."""
    fields: dict[str, Any] = {
        "hidden_size": WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": WIDTH,
        "hidden_act": "linear",
        "score_head_dim": 2,
        "num_sampled_tokens": TOKENS,
        "sampling_noise": 0.0,
        "relation": False,
        "local_mixing": False,
        "moment_invariants": False,
        "norm_type": "batch",
        "residual_scale_init": 0.8,
        "initializer_range": WIDTH**-0.5,
    }
    torch.manual_seed(seed)
    model = SFTPointCloudModel(SFTPointCloudConfig(**(fields | choice))).double().eval()
    # torch.func sees through the eager computation alone.
    model.set_attn_implementation("eager")
    layer = model.encoder.layers[0]
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name != "residual_scale":
                parameter.add_(0.3 * torch.randn_like(parameter))
        for name, buffer in layer.named_buffers():
            if name.endswith("running_mean"):
                buffer.add_(0.3 * torch.randn_like(buffer))
            elif name.endswith("running_var"):
                buffer.mul_((0.3 * torch.randn_like(buffer)).exp())
    return layer


def output_channels(layer: SFTLayer) -> Callable[[Weights], Tensor]:
    """The output of the first token, (D,), as a function of some of the layer's weights."""
    x = torch.randn(1, TOKENS, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(1, TOKENS, dtype=torch.bool)
    return lambda weights: functional_call(layer, weights, (x, mask, None, TOKENS))[0, 0]


def hidden_units(layer: SFTLayer) -> Callable[[Weights], Tensor]:
    """As `output_channels`, for the units behind the activation of the feed-forward branch."""
    recorded: dict[str, Tensor] = {}
    layer.feed_forward.activation.register_forward_hook(lambda module, args, out: recorded.update(units=out))
    channels = output_channels(layer)

    def units(weights: Weights) -> Tensor:
        channels(weights)
        return recorded["units"][0, 0]

    return units


def draw_pairs(layer: SFTLayer, names: tuple[str, ...], step: float | None = None) -> tuple[Weights, Weights]:
    """Random weights around the layer's own, and others: independent of them, or `step` away."""
    own = {name: layer.get_parameter(name).detach().expand(PAIRS, *layer.get_parameter(name).shape) for name in names}
    starts = {name: value + torch.randn_like(value) for name, value in own.items()}
    if step is None:
        return starts, {name: value + torch.randn_like(value) for name, value in own.items()}
    return starts, {name: value + step * torch.randn_like(value) for name, value in starts.items()}


def violations(function: Callable[[Weights], Tensor], starts: Weights, ends: Weights) -> tuple[Tensor, Tensor]:
    """Where each channel breaks the definition of pseudoconvexity, and of pseudoconcavity: two bools (pairs, D)."""
    leaves = {name: value.detach().requires_grad_() for name, value in starts.items()}
    steps = [(ends[name] - starts[name]).flatten(1) for name in starts]
    before, after = vmap(function)(leaves), vmap(function)(ends).detach()
    slopes = []
    for channel in before.sum(0):
        gradients = torch.autograd.grad(channel, list(leaves.values()), retain_graph=True)
        slopes.append(sum((g.flatten(1) * step).sum(1) for g, step in zip(gradients, steps, strict=True)))
    slope, before = torch.stack(slopes, 1), before.detach()
    tolerance = 1e-9 * (1 + before.abs())
    return (slope >= 0) & (after < before - tolerance), (slope <= 0) & (after > before + tolerance)


def breaks(layer: SFTLayer, names: tuple[str, ...], of: Callable = output_channels) -> tuple[int, int]:
    """How many of the drawn pairs and channels break pseudoconvexity, and pseudoconcavity."""
    convex, concave = violations(of(layer), *draw_pairs(layer, names))
    return int(convex.sum()), int(concave.sum())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("names", [VALUE, OUTPUT, UP, DOWN], ids=["value", "output", "up", "down"])
@pytest.mark.parametrize("norm_position", ["pre", "post"])
def test_linear_feed_forward_is_pseudolinear_in_value_output_and_feed_forward_weights(norm_position, names, seed):
    assert breaks(build_layer(seed, norm_position=norm_position), names) == (0, 0)


@pytest.mark.parametrize("names", [UP, DOWN], ids=["up", "down"])
@pytest.mark.parametrize("norm_type", ["layer", "rms"])
def test_feed_forward_weights_stay_pseudolinear_behind_norms_of_the_token(norm_type, names):
    assert breaks(build_layer(0, norm_type=norm_type), names) == (0, 0)


@pytest.mark.parametrize(
    ("names", "choice"),
    [
        (VALUE, {"norm_type": "layer"}),
        (VALUE, {"norm_type": "rms"}),
        (VALUE, {"hidden_act": "gelu"}),
        (UP, {"hidden_act": "gelu"}),
        (VALUE + OUTPUT, {}),
        (("residual_scale",), {}),
    ],
    ids=["layer-norm", "rms-norm", "gelu-value", "gelu-up", "two-factors", "residual-scale"],
)
def test_outside_of_the_theorem_violations_are_found(names, choice):
    counts = [breaks(build_layer(seed, **choice), names) for seed in SEEDS]
    assert all(convex >= 10 and concave >= 10 for convex, concave in counts), counts


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("names", [VALUE, OUTPUT, UP], ids=["value", "output", "up"])
def test_each_gelu_unit_is_pseudoconvex(names, seed):
    convex, concave = breaks(build_layer(seed, hidden_act="gelu"), names, of=hidden_units)
    assert convex == 0
    assert concave >= 10


@pytest.mark.parametrize("seed", SEEDS)
def test_gelu_layer_is_pseudolinear_in_the_down_projection(seed):
    assert breaks(build_layer(seed, hidden_act="gelu"), DOWN) == (0, 0)


@pytest.mark.parametrize("seed", SEEDS)
def test_gelu_layer_in_the_weights_of_one_unit_follows_the_sign_of_the_unit(seed):
    layer, unit = build_layer(seed, hidden_act="gelu"), seed
    starts, ends = draw_pairs(layer, UP)
    others = torch.arange(WIDTH) != unit
    ends = {name: value.clone() for name, value in ends.items()}
    for name, value in ends.items():
        value[:, others] = starts[name][:, others]
    convex, concave = violations(output_channels(layer), starts, ends)
    rises = layer.feed_forward.down_proj.weight[:, unit] > 0
    assert not convex[:, rises].any() and not concave[:, ~rises].any()
    assert concave[:, rises].any() or convex[:, ~rises].any()


@pytest.mark.parametrize("norm_position", ["pre", "post"])
def test_leak_weights_are_pseudoconvex_where_the_attended_part_is_negative(norm_position):
    wrong_way = 0
    for seed in SEEDS:
        layer = build_layer(seed, norm_position=norm_position)
        channels, (starts, ends) = output_channels(layer), draw_pairs(layer, LEAK)
        convex, concave = violations(channels, starts, ends)
        name = VALUE[0]
        attended = channels({}) - channels({name: torch.zeros_like(layer.get_parameter(name))})
        assert not convex[:, attended < 0].any() and not concave[:, attended > 0].any()
        wrong_way += int(convex[:, attended > 0].sum() + concave[:, attended < 0].sum())
    assert wrong_way >= 10


def pieces(layer: SFTLayer, weights: Weights) -> Tensor:
    """Which side of each max and of each relu the first token is on, (pairs, N (d_s + 1)) bool."""
    recorded: dict[str, Tensor] = {}
    hooks = [
        getattr(layer.attention, name).register_forward_hook(
            lambda module, args, out, name=name: recorded.update({name: out[0]})
        )
        for name in ("q_proj", "k_proj")
    ]
    try:
        channels = output_channels(layer)

        def sides(weights: Weights) -> Tensor:
            channels(weights)
            query, key = recorded["q_proj"][:1], recorded["k_proj"]
            return torch.cat([(query > key).flatten(), (maxout_score(query, key) > 0).flatten()])

        return vmap(sides)(weights)
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("step", [0.1, 0.3])
def test_query_and_key_weights_are_pseudolinear_while_max_and_relu_keep_their_pieces(step, seed):
    layer = build_layer(seed)
    starts, ends = draw_pairs(layer, QUERY_KEY, step)
    same = (pieces(layer, starts) == pieces(layer, ends)).all(-1)
    assert 100 <= same.sum() <= PAIRS - 100
    convex, concave = violations(output_channels(layer), starts, ends)
    assert not convex[same].any() and not concave[same].any()
    assert convex[~same].sum() >= 10 and concave[~same].sum() >= 10


@pytest.mark.parametrize("seed", SEEDS)
def test_gelu_units_are_pseudoconvex_in_query_and_key_weights_while_the_pieces_are_kept(seed):
    layer = build_layer(seed, hidden_act="gelu")
    starts, ends = draw_pairs(layer, QUERY_KEY, 0.1)
    same = (pieces(layer, starts) == pieces(layer, ends)).all(-1)
    assert same.sum() >= 100
    convex, concave = violations(hidden_units(layer), starts, ends)
    assert not convex[same].any() and concave[same].any()


@pytest.mark.parametrize("seed", SEEDS)
def test_dot_softmax_is_not_pseudoconvex_in_query_and_key_weights_at_the_same_distance(seed):
    layer = build_layer(seed, attention_score="dot", attention_probability="softmax", attention_leak=False)
    convex, concave = violations(output_channels(layer), *draw_pairs(layer, QUERY_KEY, 0.1))
    assert convex.sum() >= 10 and concave.sum() >= 10


@functools.cache
def mean_ranks(stack: str, attention: str, layers: int) -> list[float]:
    """Effective rank of 32 tokens of width 64 before and after each random layer, mean over two seeds."""
    runs = [ranks_through_layers(stack, ATTENTIONS[attention], layers, 32, 64, seed) for seed in (0, 1)]
    return [sum(ranks) / len(ranks) for ranks in zip(*runs, strict=True)]


def test_effective_rank_of_known_matrices():
    assert effective_rank(torch.eye(4, 7)) == pytest.approx(4)
    assert effective_rank(torch.ones(4, 7)) == pytest.approx(1)
    assert effective_rank(torch.zeros(4, 7)) == 0
    # Singular values 3 and 1: exp(entropy of (3/4, 1/4)) = 4 / 3^(3/4).
    assert effective_rank(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(4 / 3**0.75)


@pytest.mark.parametrize(
    ("leaky", "other"),
    [
        ("maxout, relu, leak", "maxout, relu"),
        ("maxout, relu, leak", "maxout, softmax"),
        ("maxout, relu, leak", "dot, softmax"),
        ("dot, softmax, leak", "dot, softmax"),
    ],
)
def test_leak_keeps_rank_through_100_pre_norm_layers(leaky, other):
    rank = mean_ranks("pre", leaky, 100)[-1]
    assert rank > 13
    assert rank > 1.3 * mean_ranks("pre", other, 100)[-1]


def test_post_norm_layers_collapse_later_with_leaky_maxout_relu_than_with_softmax():
    leaky, softmax = (mean_ranks("post", name, 60) for name in ("maxout, relu, leak", "dot, softmax"))
    assert leaky[15] > 3 * softmax[15]
    assert max(leaky[-1], softmax[-1]) < 1.5


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_without_skip_connection_every_attention_collapses(attention):
    assert mean_ranks("attention", attention, 8)[-1] < 1.01


def test_rank_figure_and_table(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    path = tmp_path / "figures" / "rank.png"
    sizes = ["--layers", "2", "--tokens", "6", "--width", "8", "--seeds", "0", "1"]
    monkeypatch.setattr(sys, "argv", ["figures.py", "rank", "--output", str(path), *sizes])
    assert main() == 0
    assert path.stat().st_size > 10_000
    rows = path.with_suffix(".csv").read_text().splitlines()
    assert rows[0] == "stack,attention,seed,layer,effective_rank"
    assert len(rows) == 1 + len(STACKS) * len(ATTENTIONS) * 2 * 3


def test_rank_figure_refuses_a_file_that_is_no_image(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["figures.py", "rank", "--output", "rank.csv"])
    with pytest.raises(SystemExit):
        main()
    assert "use a name that ends in .png, .svg or .pdf" in capsys.readouterr().err
