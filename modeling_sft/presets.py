"""Named configurations: sizes of SFT and of its predecessor SAMSA for each kind of input, and tiny ones for tests."""

import copy
import difflib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from .configuration_sft import SFTConfig, SFTEncoderConfig, SFTGraphConfig, SFTPointCloudConfig
from .graph.molecules import ATOM_FEATURE_SIZES, BOND_FEATURE_SIZES


class Preset(NamedTuple):
    """A named configuration."""

    description: str
    """One line."""
    factory: Callable[..., SFTEncoderConfig]
    """Makes the configuration; arguments replace its fields."""


_INPUTS: dict[str, tuple[str, type[SFTEncoderConfig], dict[str, Any]]] = {
    "sequence": ("texts as bytes", SFTConfig, {}),
    "point-cloud": ("point clouds", SFTPointCloudConfig, {}),
    "graph": (
        "molecules",
        SFTGraphConfig,
        {"node_vocab_sizes": list(ATOM_FEATURE_SIZES), "edge_vocab_sizes": list(BOND_FEATURE_SIZES)},
    ),
}
_SIZE_FIELDS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_sampled_tokens", "intermediate_size")
_SIZES = {"tiny": (64, 2, 4, 32, 128), "small": (128, 4, 4, 128, 256), "base": (256, 6, 8, 256, 1024)}
_TEST_SIZE = dict(zip(_SIZE_FIELDS, (16, 2, 2, 6, 32), strict=True))
# What distinguishes the predecessor (arXiv 2408.05391). Local mixing stays, as in configuration/samsa-digits/sft.yaml.
_SAMSA: dict[str, Any] = {
    "sampling_scope": "head",
    "sampling_noise": 0.25,
    "num_extra_tokens": 2,
    "score_head_dim": None,
    "attention_score": "dot",
    "attention_probability": "softmax",
    "attention_leak": False,
    "relation": False,
    "norm_type": "rms",
    "norm_position": "pre",
}


def _make(config_class: type[SFTEncoderConfig], fields: dict[str, Any], **changes: Any) -> SFTEncoderConfig:
    # Copied, so that no two configurations share a list.
    return config_class(**{**copy.deepcopy(fields), **changes})


def _make_presets() -> dict[str, Preset]:
    presets = {}
    for kind, (noun, config_class, inputs) in _INPUTS.items():
        predecessor = {**_SAMSA, **({"moment_invariants": False} if kind == "point-cloud" else {})}
        for size, numbers in _SIZES.items():
            width, layers, heads, tokens, _ = numbers
            fields = {**inputs, **dict(zip(_SIZE_FIELDS, numbers, strict=True))}
            shape = f"{layers} layers of width {width}, {heads} heads, K = {tokens}"
            presets[f"sft-{size}-{kind}"] = Preset(f"SFT for {noun}: {shape}", partial(_make, config_class, fields))
            presets[f"samsa-{size}-{kind}"] = Preset(
                f"SAMSA for {noun}: {shape}", partial(_make, config_class, {**fields, **predecessor})
            )
        for name, changes in (("sft", {}), ("samsa", predecessor)):
            presets[f"test-{name}-{kind}"] = Preset(
                f"{name.upper()} for {noun}, as small as tests want it",
                partial(_make, config_class, {**inputs, **_TEST_SIZE, **changes}),
            )
    return dict(sorted(presets.items()))


PRESETS: dict[str, Preset] = _make_presets()


def preset(name: str, **changes: Any) -> Any:
    """The configuration of a name.

    Args:
        name: a key of `PRESETS`, such as `"sft-small-point-cloud"`.
        changes: fields to replace, such as `num_labels=10`.

    Returns:
        A new [`SFTConfig`], [`SFTPointCloudConfig`] or [`SFTGraphConfig`].

    Raises:
        ValueError: an unknown name, or a field that is close to the name of another one.
        StrictDataclassError: a field that is out of range (of `huggingface_hub.errors`).

    Example:
    ```python
    >>> from modeling_sft import SFTForPointCloudClassification
    >>> from modeling_sft.presets import preset

    >>> model = SFTForPointCloudClassification(preset("sft-tiny-point-cloud", num_labels=10))

    ```
    """
    if name not in PRESETS:
        close = difflib.get_close_matches(str(name), PRESETS, n=1)
        remedy = f"did you mean {close[0]!r}?" if close else f"the names are {', '.join(PRESETS)}."
        raise ValueError(f"There is no preset {name!r}: {remedy}")
    return PRESETS[name].factory(**changes)
