"""Draw the figures of the documentation."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    from modeling_sft.encoder.encoder import SFTLayer

EPILOG = """examples:
  python scripts/figures.py rank --output docs/figures/rank.png
  python scripts/figures.py rank --output rank.png --layers 30 --tokens 64 --width 128 --seeds 0
"""
ATTENTIONS: dict[str, dict[str, Any]] = {
    "maxout, relu, leak": {},
    "dot, softmax, leak": {"attention_score": "dot", "attention_probability": "softmax"},
    "maxout, relu": {"attention_leak": False},
    "maxout, softmax": {"attention_probability": "softmax", "attention_leak": False},
    "dot, softmax": {"attention_score": "dot", "attention_probability": "softmax", "attention_leak": False},
}
STACKS: dict[str, str] = {
    "pre": "whole layers, pre-norm",
    "post": "whole layers, post-norm",
    "attention": "attention alone: no skip connection",
}
STYLES = {
    "maxout, relu, leak": ("#0b6e4f", "-"),
    "dot, softmax, leak": ("#d1495b", "-"),
    "maxout, relu": ("#0b6e4f", "--"),
    "maxout, softmax": ("#3d5a98", "--"),
    "dot, softmax": ("#d1495b", "--"),
}


class RankTrace(NamedTuple):
    """Effective ranks of one random stack: `ranks[l]` after l layers."""

    stack: str
    attention: str
    seed: int
    ranks: list[float]


def effective_rank(tokens: Tensor) -> float:
    """The exponential of the entropy of the singular values, each divided by their sum (Roy and Vetterli, 2007).

    Args:
        tokens: `(N, D)`.

    Returns:
        Between 1 (all rows are multiples of one) and min(N, D) (equal singular values); 0 if all tokens are zero.
    """
    import torch

    values = torch.linalg.svdvals(tokens.double())
    if values[0] == 0:
        return 0.0
    return float(torch.special.entr(values / values.sum()).sum().exp())


def random_layers(
    count: int, tokens: int, width: int, norm_position: Literal["pre", "post"] = "pre", **attention: Any
) -> Iterator[SFTLayer]:
    """Single-head layers at their initial weights, with unit residual scale and without sampling, one at a time.

    Draws from torch's global generator. All weights have variance 1 / fan-in, so that attention and feed-forward keep
    the size of what they get.

    Args:
        count: number of layers.
        tokens: N; all of them are attended to.
        width: D, which is also d_s and the inner width of the feed-forward branch.
        norm_position: `"pre"` or `"post"`.
        attention: further fields of the configuration.
    """
    from modeling_sft import SFTPointCloudConfig, SFTPointCloudModel

    config = SFTPointCloudConfig(
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=width,
        score_head_dim=None,
        num_sampled_tokens=tokens,
        sampling_noise=0.0,
        relation=False,
        local_mixing=False,
        moment_invariants=False,
        norm_position=norm_position,
        residual_scale_init=1.0,
        initializer_range=width**-0.5,
        **attention,
    )
    for _ in range(count):
        yield SFTPointCloudModel(config).eval().encoder.layers[0]


def ranks_through_layers(
    stack: str, attention: Mapping[str, Any], layers: int, tokens: int, width: int, seed: int
) -> Iterator[float]:
    """Effective rank of a random token matrix before and after each of many random layers.

    Args:
        stack: a key of `STACKS`.
        attention: a value of `ATTENTIONS`.
        layers, tokens, width: size of the stack and of its input.
        seed: of the weights and of the input, whose entries are standard normal.
    """
    import torch

    torch.manual_seed(seed)
    states, mask = torch.randn(1, tokens, width), torch.ones(1, tokens, dtype=torch.bool)
    yield effective_rank(states[0])
    norm_position: Literal["pre", "post"] = "post" if stack == "post" else "pre"
    for layer in random_layers(layers, tokens, width, norm_position, **attention):
        with torch.no_grad():
            if stack == "attention":
                states = layer.attention(layer.attention_norm(states, mask), mask, None, tokens)[0]
            else:
                states = layer(states, mask, None, tokens)
        yield effective_rank(states[0])


def rank_traces(layers: int, tokens: int, width: int, seeds: Sequence[int]) -> list[RankTrace]:
    """Run every stack with every attention and every seed, under a progress bar."""
    from tqdm.auto import tqdm

    traces = []
    with tqdm(total=len(STACKS) * len(ATTENTIONS) * len(seeds) * (layers + 1), unit="layer") as bar:
        for stack in STACKS:
            for name, attention in ATTENTIONS.items():
                for seed in seeds:
                    bar.set_description(f"{stack}; {name}; seed {seed}")
                    ranks = []
                    for rank in ranks_through_layers(stack, attention, layers, tokens, width, seed):
                        ranks.append(rank)
                        bar.update()
                    traces.append(RankTrace(stack, name, seed, ranks))
    return traces


def write_rank_table(traces: Iterable[RankTrace], path: Path) -> None:
    """Write one row for each stack, attention, seed and layer; layer 0 is the input."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("stack", "attention", "seed", "layer", "effective_rank"))
        for trace in traces:
            for layer, rank in enumerate(trace.ranks):
                writer.writerow((trace.stack, trace.attention, trace.seed, layer, f"{rank:.4f}"))


def plot_ranks(traces: Sequence[RankTrace], tokens: int, width: int, path: Path) -> None:
    """Draw one panel for each stack: the mean over the seeds as a line, their range as a band."""
    from modeling_sft.hub.optional import import_optional

    figure = import_optional("matplotlib.figure", "train").Figure(figsize=(12, 4.6), layout="constrained")
    for axes, (stack, title) in zip(figure.subplots(1, len(STACKS), sharey=True), STACKS.items(), strict=True):
        for name, (colour, line_style) in STYLES.items():
            runs = [trace.ranks for trace in traces if (trace.stack, trace.attention) == (stack, name)]
            columns = list(zip(*runs, strict=True))
            depth = range(len(columns))
            means = [sum(column) / len(column) for column in columns]
            axes.plot(depth, means, color=colour, linestyle=line_style, label=name)
            axes.fill_between(depth, list(map(min, columns)), list(map(max, columns)), color=colour, alpha=0.15, lw=0)
        axes.set_title(title)
        axes.set_xlabel("layer")
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xticks([0, 1, 2, 5, 10, 20, 50, 100], labels=["0", "1", "2", "5", "10", "20", "50", "100"])
        axes.set_xlim(0, len(depth) - 1)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("effective rank of the token matrix")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(STYLES))
    figure.suptitle(f"{tokens} tokens of width {width} through random single-head layers")
    figure.savefig(path, dpi=120)


def draw_rank(arguments: argparse.Namespace) -> None:
    """Write the figure and, beside it, the numbers as CSV."""
    from modeling_sft.hub.optional import import_optional

    import_optional("matplotlib.figure", "train")  # before the long computation rather than after it
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    traces = rank_traces(arguments.layers, arguments.tokens, arguments.width, arguments.seeds)
    table = arguments.output.with_suffix(".csv")
    write_rank_table(traces, table)
    plot_ranks(traces, arguments.tokens, arguments.width, arguments.output)
    print(f"written to {arguments.output} and {table}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Draw a figure of the documentation.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    figures = parser.add_subparsers(dest="figure", required=True, metavar="FIGURE")
    rank = figures.add_parser(
        "rank",
        help="rank of the token matrix through random layers",
        description="Send random tokens through random single-head layers, with several kinds of attention, and draw "
        "the effective rank of the token matrix after each layer. The numbers are written beside the figure as CSV.",
    )
    rank.add_argument("--output", type=image_path, required=True, metavar="FILE.png", help="image file to write")
    rank.add_argument("--layers", type=positive, default=100, help="default: %(default)s")
    rank.add_argument("--tokens", type=positive, default=256, help="default: %(default)s")
    rank.add_argument("--width", type=positive, default=512, help="default: %(default)s")
    rank.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="SEED", help="default: 0 1 2")
    rank.set_defaults(draw=draw_rank)
    return parser.parse_args()


def image_path(text: str) -> Path:
    path = Path(text)
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise argparse.ArgumentTypeError(f"{text!r}: use a name that ends in .png, .svg or .pdf")
    return path


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: use an integer of at least 1")
    return value


def main() -> int:
    arguments = parse_arguments()
    arguments.draw(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
