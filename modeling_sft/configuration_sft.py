"""Configurations of the Sampling Foundational Transformer (SFT): one shared encoder part, one class per input kind.

Sources: SFT (arXiv 2408.05822), SAMSA (arXiv 2408.05391).
"""

import dataclasses
import difflib
import numbers
import re
from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

# Far above what is in use: a damaged or hostile file must not make Transformers build it until memory is full.
_LARGEST = {
    "num_hidden_layers": 4096,
    **dict.fromkeys(("vocab_size", "max_position_embeddings", "node_vocab_sizes", "edge_vocab_sizes"), 2**24),
}
LARGEST_SIZE = 2**20
# Scores are compared in steps of 2**-12, which noise so far below does not reorder; its inverse leaves float32.
SMALLEST_NOISE = 1e-9
# Special tokens and bytes of `byte_tokenizer`.
NUM_BYTE_TOKENS = 260
LARGEST_RADIUS = 64


def _largest(value: Any) -> int:
    if isinstance(value, list):
        return max(map(_largest, value), default=0)
    return value if isinstance(value, int) else 0


def _require(condition: bool, field: str, value: Any, remedy: str) -> None:
    if not condition:
        raise ValueError(f"`{field}` is {value!r}: {remedy}")


def check_sampling_noise(noise: float) -> None:
    """Check the factor of the Gumbel noise.

    Raises:
        ValueError: it is neither 0 nor finite and large enough to matter.
    """
    remedy = f"use 0, or a finite number of at least {SMALLEST_NOISE:g}."
    _require(noise == 0 or SMALLEST_NOISE <= noise < float("inf"), "sampling_noise", noise, remedy)


def _auto_map(config: str, module: str, model: str, *heads: str) -> dict[str, str]:
    """Where the Auto classes find all classes: a head's repository must also load as AutoModel, and vice versa."""
    own = {"AutoConfig": f"configuration_sft.{config}", "AutoModel": f"{module}.{model}"}
    return own | {f"AutoModelFor{head}": f"{module}.SFTFor{head}" for head in heads}


@strict
class SFTEncoderConfig(PreTrainedConfig):
    r"""The fields that sequences, graphs and point clouds share. Not used alone: see the subclasses.

    Args:
        hidden_size: width D of the token states; a multiple of `num_attention_heads`.
        num_hidden_layers: number of encoder layers.
        num_attention_heads: heads H.
        intermediate_size: inner width of the feed-forward branch.
        hidden_act: activation of the feed-forward branch; any name of Transformers' `ACT2FN`, `"linear"` included.
        score_head_dim: query and key channels per head, d_s. `None` means `hidden_size / num_attention_heads`.
        num_sampled_tokens: K, the tokens that each layer samples and every token attends to; at most 2**20.
        num_sampled_tokens_range: `[low, high]`; in training K is drawn from it (both ends included), once per forward
            pass.
        sampling_scope: one sample per layer, or one per head (SAMSA).
        sampling_estimator: how the importance scorer gets its gradient.
        sampling_temperature: tau of the straight-through estimator.
        sampling_noise: factor of the Gumbel noise on the importance scores in training; 0 for none.
        importance_scale: factor of the importance scores.
        sampling_inference: deterministic selection at inference. `None` resolves to `"topk"` without noise and to
            `"systematic"` with noise.
        num_extra_tokens: learned tokens (per head when `sampling_scope="head"`) that compete to be sampled.
        attention_score: the score of query and key.
        attention_probability: turns scores to weights.
        attention_leak: adds a learned sink to the denominator, so rows sum to under 1.
        relation: lets pairwise features scale and shift the scores.
        local_mixing: mixes each token with its neighbours before the sampler.
        local_mixing_size: neighbours (or kernel width) of the local mixing.
        norm_position: norms before the branches of a layer, or behind their sums.
        norm_type: `"batch"` leaves padding out.
        norm_eps: added to variances, so that norms do not divide by 0.
        residual_scale_init: start of the learned factor on both branches of a layer; 0 is ReZero, which short
            trainings learned less with (docs/ablations.md).
        hidden_dropout_prob, attention_probs_dropout_prob, drop_path_prob: rates of dropout in the branches, on the
            attention weights, and of whole branches.
        pooling: readout of the classification heads; `"first"`, the state of the first token, is for sequences alone.
        initializer_range: standard deviation of the weights. `None` stands for `hidden_size**-0.5`, with which queries
            and keys are drawn in any case: the score's scaling rests on it.

    Raises:
        ValueError: a field is out of its range, or an unknown argument is close to the name of a field.
    """

    modality: ClassVar[str] = ""
    _classes: ClassVar[dict[str, str]] = {}

    hidden_size: int = 256
    num_hidden_layers: int = 6
    num_attention_heads: int = 8
    intermediate_size: int = 1024
    hidden_act: str = "gelu"
    score_head_dim: int | None = 8
    num_sampled_tokens: int = 256
    num_sampled_tokens_range: list[int] | None = None
    sampling_scope: Literal["layer", "head"] = "layer"
    sampling_estimator: Literal["gate", "soft", "straight_through"] = "gate"
    sampling_temperature: float | int = 1.0
    sampling_noise: float | int = 0.25
    importance_scale: float | int = 1.0
    sampling_inference: Literal["systematic", "topk"] | None = None
    num_extra_tokens: int = 0
    attention_score: Literal["maxout", "dot", "signed_min"] = "maxout"
    attention_probability: Literal["relu", "softplus", "softmax"] = "relu"
    attention_leak: bool = True
    relation: bool = True
    local_mixing: bool = True
    local_mixing_size: int = 5
    norm_position: Literal["pre", "post"] = "pre"
    norm_type: Literal["layer", "rms", "batch"] = "layer"
    norm_eps: float | int = 1e-5
    residual_scale_init: float | int = 1.0
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    drop_path_prob: float | int = 0.0
    pooling: Literal["attention", "mean", "max", "first"] = "attention"
    initializer_range: float | int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if kwargs.get("model_type", self.model_type) != self.model_type:
            raise ValueError(
                f"{type(self).__name__} is for models of type `{self.model_type}`, and this one is a "
                f"`{kwargs['model_type']}`: load it with an Auto class, which finds the right one."
            )
        own_fields = self._own_field_names()
        for name in kwargs:
            if hasattr(PreTrainedConfig, name) or name.startswith("_") or name in ("num_labels", "auto_map"):
                continue
            close = difflib.get_close_matches(name, own_fields, n=1, cutoff=0.8)
            if close:
                raise ValueError(f"{type(self).__name__} has no field `{name}`: did you mean `{close[0]}`?")
        self._validate_inherited(kwargs)
        if self.initializer_range is None and self.hidden_size >= 1:
            # Transformers reads the field when it draws weights, and takes None for 0.02.
            self.initializer_range = self.hidden_size**-0.5
        if self._classes:
            kwargs.setdefault("auto_map", dict(self._classes))
        super().__post_init__(**kwargs)

    def _validate_inherited(self, kwargs: dict[str, Any]) -> None:
        """Check what Transformers reads, unchecked, from the same file."""
        labels, count, weights = self.id2label, kwargs.get("num_labels"), kwargs.get("transformers_weights")
        names_indices = isinstance(labels, dict) and all(str(index).isdecimal() for index in labels)
        is_count = isinstance(count, numbers.Integral) and 0 <= int(count) <= LARGEST_SIZE
        is_file = re.fullmatch(r"[^/\\]+\.safetensors(\.index\.json)?", str(weights)) is not None
        for field, value, fits, remedy in (
            ("id2label", labels, names_indices, "use a dictionary from class indices to names."),
            ("num_labels", count, is_count, f"use an integer from 0 to {LARGEST_SIZE}."),
            ("transformers_weights", weights, is_file, "name a file of safetensors in the folder."),
        ):
            _require(value is None or fits, field, value, remedy)

    @classmethod
    def _own_field_names(cls) -> list[str]:
        inherited = {field.name for field in dataclasses.fields(PreTrainedConfig)}
        return [field.name for field in dataclasses.fields(cls) if field.name not in inherited]

    def validate_architecture(self) -> None:
        """Check ranges and combinations of fields; runs whenever a configuration is made."""
        for name in self._own_field_names():
            value, limit = getattr(self, name), _LARGEST.get(name, LARGEST_SIZE)
            _require(_largest(value) <= limit, name, value, f"use at most {limit}.")
        sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        self._check_least(1, *sizes, "num_sampled_tokens", "local_mixing_size")
        heads, sample_range = self.num_attention_heads, self.num_sampled_tokens_range
        remedy = f"use a multiple of `num_attention_heads` ({heads})."
        self._check("hidden_size", self.hidden_size % heads == 0, remedy)
        fits = self.score_head_dim is None or self.score_head_dim >= 1
        remedy = "use an integer of at least 1, or None for hidden_size / num_attention_heads."
        self._check("score_head_dim", fits, remedy)
        self._check("hidden_act", self.hidden_act in ACT2FN, f"use one of {', '.join(sorted(ACT2FN))}.")
        self._check(
            "num_sampled_tokens_range",
            sample_range is None or (len(sample_range) == 2 and 1 <= sample_range[0] <= sample_range[1]),
            "use None or a list [low, high] with 1 <= low <= high.",
        )
        check_sampling_noise(self.sampling_noise)
        fits = 0 <= self.residual_scale_init < float("inf")
        self._check("residual_scale_init", fits, "use a finite number of at least 0.")
        for name in ("sampling_temperature", "importance_scale", "norm_eps", "initializer_range"):
            self._check(name, 0 < getattr(self, name) < float("inf"), "use a finite number above 0.")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_prob"):
            self._check(name, 0 <= getattr(self, name) < 1, "use a probability, at least 0 and below 1.")
        self._check_least(0, "num_extra_tokens")
        fits = self.pooling != "first" or self.modality == "sequence"
        self._check("pooling", fits, "points and nodes come in no order: use attention, mean or max.")

    def _check(self, field: str, fits: bool, remedy: str) -> None:
        _require(fits, field, getattr(self, field), remedy)

    def _check_least(self, least: int, *fields: str) -> None:
        for field in fields:
            self._check(field, getattr(self, field) >= least, f"use an integer of at least {least}.")

    @property
    def num_context_counts(self) -> int:
        """Width of the counts of neighbourhoods that classification heads see; 0 for none."""
        return 0

    @property
    def score_channels(self) -> int:
        """Query and key channels per head, d_s."""
        return self.score_head_dim or self.hidden_size // self.num_attention_heads

    @property
    def num_samples(self) -> int:
        """Samples per layer, S: one, or one per head."""
        return self.num_attention_heads if self.sampling_scope == "head" else 1

    @property
    def resolved_sampling_inference(self) -> str:
        """The selection that inference uses: `sampling_inference`, or what fits the noise of the weights."""
        if self.sampling_noise == 0:
            return "topk"
        return self.sampling_inference or "systematic"


@strict
class SFTContextConfig(SFTEncoderConfig):
    r"""The fields that sequences and graphs share beside those of [`SFTEncoderConfig`]. Not used alone.

    Args:
        context_hash_buckets: rows of the tables of context hashes, for each kind of neighbourhood; a power of two.
        context_hash_dim: width of the tables that tell each token its neighbourhoods; 0 for none.
        context_count_dim: width of the table that tells the classification heads which neighbourhoods a whole row has,
            and how many of each; 0 for none.
        context_hash_dropout: rate at which neighbourhoods are left out in training.
        context_hash_seed: of the hashes; belongs to the weights.

    The other arguments are those of [`SFTEncoderConfig`].
    """

    context_hash_buckets: int = 4096
    context_hash_dim: int = 16
    context_count_dim: int = 128
    context_hash_dropout: float | int = 0.0
    context_hash_seed: int = 0

    @property
    def num_context_kinds(self) -> int:
        """Kinds of neighbourhoods that are hashed."""
        return 0

    @property
    def num_context_counts(self) -> int:
        """Width of the counts of neighbourhoods that classification heads see; 0 for none."""
        return self.context_count_dim if self.num_context_kinds else 0

    def validate_architecture(self) -> None:
        """Check ranges and combinations of fields; runs whenever a configuration is made."""
        super().validate_architecture()
        size = self.context_hash_buckets
        self._check("context_hash_buckets", size >= 2 and size & (size - 1) == 0, "use a power of two of at least 2.")
        self._check_least(0, "context_hash_dim", "context_count_dim", "context_hash_seed")
        fits = 0 <= self.context_hash_dropout < 1
        self._check("context_hash_dropout", fits, "use a probability, at least 0 and below 1.")


@strict
class SFTConfig(SFTContextConfig):
    r"""Configuration of SFT for sequences: text, bytes, pixels, signals.

    Args:
        vocab_size: token ids, those of [`byte_tokenizer`] by default; 0 for models of continuous features alone.
        num_input_features: continuous features per step (a gray level, the channels of a signal); 0 for models of
            token ids.
        type_vocab_size: token types; 0 for none.
        position_embedding: what tells positions apart; sinusoids have no largest length.
        max_position_embeddings: number of learned positions, which `"learned"` needs.
        relation: lets features of the offset between two tokens scale and shift their score. Positions are in the
            embeddings already, and look-ups are slow (docs/benchmark.md).
        local_mixing_size: width of the depthwise convolution of each layer.
        pad_token_id: the token whose embedding stays zero.
        tie_word_embeddings: lets masked language models share the weights of token embeddings and output layer.
        context_hash_sizes: lengths of the runs of tokens that are hashed, each ending at a token; `None` for none.
        context_hash_words: hashes words as well, and pairs of words; for the token ids of [`byte_tokenizer`].

    The other arguments are those of [`SFTContextConfig`].

    Example:
    ```python
    >>> from modeling_sft import SFTConfig, SFTForSequenceClassification

    >>> config = SFTConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_labels=2)
    >>> model = SFTForSequenceClassification(config)

    ```
    """

    model_type = "sft"
    modality: ClassVar[str] = "sequence"
    _classes = _auto_map(
        *("SFTConfig", "modeling_sft", "SFTModel", "MaskedLM", "PreTraining", "SequenceClassification"),
        *("TokenClassification", "QuestionAnswering", "SequencePairClassification"),
    )

    vocab_size: int = NUM_BYTE_TOKENS
    num_input_features: int = 0
    type_vocab_size: int = 0
    position_embedding: Literal["sinusoidal", "learned", "none"] = "sinusoidal"
    max_position_embeddings: int | None = None
    relation: bool = False
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = True
    context_hash_sizes: list[int] | None = None
    context_hash_words: bool = False

    @property
    def num_context_kinds(self) -> int:
        """Kinds of neighbourhoods that are hashed."""
        return len(self.context_hash_sizes or ()) + 2 * self.context_hash_words

    def __post_init__(self, **kwargs: Any) -> None:
        if self.vocab_size == 0:
            self.pad_token_id = None
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Check ranges and combinations of fields; runs whenever a configuration is made."""
        super().validate_architecture()
        self._check_least(0, "vocab_size", "num_input_features", "type_vocab_size")
        self._check(
            "vocab_size",
            self.vocab_size + self.num_input_features > 0,
            "a model needs token ids (`vocab_size`) or continuous inputs (`num_input_features`).",
        )
        positions, padding = self.max_position_embeddings, self.pad_token_id
        fits = positions is None or positions >= 1
        self._check("max_position_embeddings", fits, "use an integer of at least 1, or None.")
        fits = self.position_embedding != "learned" or positions is not None
        self._check("max_position_embeddings", fits, 'set the largest length for `position_embedding="learned"`.')
        fits = padding is None or self.vocab_size == 0 or 0 <= padding < self.vocab_size
        self._check("pad_token_id", fits, f"use None or a token id below `vocab_size` ({self.vocab_size}).")
        fits = all(size >= 1 for size in self.context_hash_sizes or ())
        self._check("context_hash_sizes", fits, "use None, or a list of lengths of at least 1.")
        fits = self.vocab_size > 0 or not self.num_context_kinds
        self._check("vocab_size", fits, "context hashes are of token ids; set the size of their vocabulary.")
        # More than these where tokens were added to the tokenizer.
        fits = not self.context_hash_words or self.vocab_size >= NUM_BYTE_TOKENS
        remedy = f"words are found in the {NUM_BYTE_TOKENS} token ids of `byte_tokenizer`; use `context_hash_sizes`."
        self._check("context_hash_words", fits, remedy)


@strict
class SFTGraphConfig(SFTContextConfig):
    r"""Configuration of SFT for graphs.

    Args:
        node_vocab_sizes: categories of each categorical node feature, in order of the columns of `node_features`.
        num_node_features: continuous node features, in the columns behind the categorical ones.
        edge_vocab_sizes: likewise of edges.
        num_edge_features: likewise of edges.
        num_node_encodings: numbers per node that say where it lies in its graph (random-walk or Laplacian encodings).
        num_graph_features: numbers per graph, such as descriptors of molecules, for heads of whole graphs.
        graph_feature_mean, graph_feature_scale: their means and standard deviations, by which they are normalised.
        target_mean, target_scale: means and standard deviations of regression targets; the loss is computed on
            normalised targets, and logits are in the targets' own units.
        context_hash_radius: of the largest ball of nodes and edges, known by their categories, that is hashed around
            each node; `None` for none.

    The other arguments are those of [`SFTContextConfig`]; `local_mixing_size` is not used.

    Example:
    ```python
    >>> from modeling_sft import SFTForGraphClassification, SFTGraphConfig

    >>> config = SFTGraphConfig(node_vocab_sizes=[28], hidden_size=64, num_attention_heads=4, num_labels=2)
    >>> model = SFTForGraphClassification(config)

    ```
    """

    model_type = "sft_graph"
    modality: ClassVar[str] = "graph"
    _classes = _auto_map(
        *("SFTGraphConfig", "modeling_sft_graph", "SFTGraphModel"),
        *("GraphClassification", "NodeClassification", "LinkPrediction"),
    )

    node_vocab_sizes: list[int] | None = None
    num_node_features: int = 0
    edge_vocab_sizes: list[int] | None = None
    num_edge_features: int = 0
    num_node_encodings: int = 0
    num_graph_features: int = 0
    graph_feature_mean: list[float] | None = None
    graph_feature_scale: list[float] | None = None
    target_mean: list[float] | None = None
    target_scale: list[float] | None = None
    context_hash_radius: int | None = None

    @property
    def num_context_kinds(self) -> int:
        """Kinds of neighbourhoods that are hashed."""
        return 0 if self.context_hash_radius is None else self.context_hash_radius + 1

    @property
    def has_edge_features(self) -> bool:
        """Whether edges have features beside their existence."""
        return bool(self.edge_vocab_sizes) or self.num_edge_features > 0

    def validate_architecture(self) -> None:
        """Check ranges and combinations of fields; runs whenever a configuration is made."""
        super().validate_architecture()
        self._check_least(0, "num_node_features", "num_edge_features", "num_node_encodings", "num_graph_features")
        for name in ("node_vocab_sizes", "edge_vocab_sizes"):
            fits = all(size >= 1 for size in getattr(self, name) or ())
            self._check(name, fits, "use None, or sizes of at least 1.")
        for kind, count, owner in (
            ("target", self.num_labels, "label"),
            ("graph_feature", self.num_graph_features, "feature"),
        ):
            mean, std = getattr(self, f"{kind}_mean"), getattr(self, f"{kind}_scale")
            self._check(
                f"{kind}_scale",
                (mean is None) == (std is None)
                and (mean is None or std is None or (len(mean) == len(std) == count and min(std, default=1.0) > 0)),
                f"set `{kind}_mean` and `{kind}_scale` together, one number per {owner}, deviations above 0.",
            )
        fits = self.context_hash_radius is None or 0 <= self.context_hash_radius <= LARGEST_RADIUS
        self._check("context_hash_radius", fits, f"use None or an integer from 0 to {LARGEST_RADIUS}.")


@strict
class SFTPointCloudConfig(SFTEncoderConfig):
    r"""Configuration of SFT for point clouds.

    Args:
        use_normals: `True` requires normals, `False` refuses them, `None` uses them when given.
        num_point_features: further features per point (colour, intensity, ...).
        rotation_invariant: feeds the network rotation invariants only, so that its output does not depend on the pose;
            otherwise coordinates (and normals) enter as well.
        num_neighbors: nearest neighbours that describe the surface around a point.
        moment_invariants: describes also where a point lies in the whole cloud, by invariants of the cloud's second
            and third moments.
        num_categories: shape categories given to the model (part segmentation); 0 for none.
        category_parts: the labels that occur in each category, to which evaluation restricts the predictions; one list
            per category.
        local_mixing_size: nearest neighbours of the edge step; at most `num_neighbors`.
        sampling_noise: full noise keeps the sample representative of the cloud, so that `num_sampled_tokens` can be
            raised after training.

    The other arguments are those of [`SFTEncoderConfig`].

    Example:
    ```python
    >>> from modeling_sft import SFTForPointCloudClassification, SFTPointCloudConfig

    >>> config = SFTPointCloudConfig(hidden_size=64, num_attention_heads=4, num_sampled_tokens=32, num_labels=10)
    >>> model = SFTForPointCloudClassification(config)

    ```
    """

    model_type = "sft_point_cloud"
    modality: ClassVar[str] = "point_cloud"
    _classes = _auto_map(
        *("SFTPointCloudConfig", "modeling_sft_point_cloud", "SFTPointCloudModel"),
        *("PointCloudClassification", "PointCloudSegmentation"),
    )

    local_mixing_size: int = 16
    sampling_noise: float | int = 1.0
    use_normals: bool | None = None
    num_point_features: int = 0
    rotation_invariant: bool = False
    num_neighbors: int = 16
    moment_invariants: bool = True
    num_categories: int = 0
    category_parts: list[list[int]] | None = None

    def validate_architecture(self) -> None:
        """Check ranges and combinations of fields; runs whenever a configuration is made."""
        super().validate_architecture()
        self._check_least(1, "num_neighbors")
        fits = not self.local_mixing or self.local_mixing_size <= self.num_neighbors
        self._check("local_mixing_size", fits, f"use at most `num_neighbors` ({self.num_neighbors}).")
        self._check_least(0, "num_point_features", "num_categories")
        parts = self.category_parts
        self._check(
            "category_parts",
            parts is None or (len(parts) == self.num_categories and all(part and min(part) >= 0 for part in parts)),
            f"use None, or for each of `num_categories` ({self.num_categories}) a list of labels.",
        )


SFTConfig._auto_class = "AutoConfig"
SFTGraphConfig._auto_class = "AutoConfig"
SFTPointCloudConfig._auto_class = "AutoConfig"

__all__ = ["SFTConfig", "SFTContextConfig", "SFTEncoderConfig", "SFTGraphConfig", "SFTPointCloudConfig"]
