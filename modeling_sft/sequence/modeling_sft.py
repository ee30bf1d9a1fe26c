"""SFT for sequences: backbone; heads for masked tokens, sequences, pairs, tokens, answers (arXiv 2408.05822)."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.utils.generic import can_return_tuple, maybe_autocast, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from ..configuration_sft import SFTConfig
from ..encoder.context_hashes import ContextHashes, SFTContextEmbedding
from ..encoder.encoder import SFTEncoder
from ..encoder.heads import SFTClassificationHead, SFTTokenHead, answer
from ..encoder.losses import class_loss, share_of_step
from ..encoder.outputs import (
    SFTClassifierOutput,
    SFTModelOutput,
    SFTPreTrainingOutput,
    SFTQuestionAnsweringOutput,
    recorded,
)
from ..encoder.pretrained import FORWARD_OPTIONS, SFTPreTrainedModel
from ..encoder.pretraining import SFTPreTrainingHead
from ..hub.arguments import refuses_unknown_arguments
from ..nn.checks import can_check_values, check_finite, check_range, check_shape, resolve_mask
from ..nn.initialization import unit_variance, unit_variance_linear
from ..nn.norms import build_norm
from .context_hashes import sequence_hashes
from .heads import SFTMaskedLMHead, SFTPairClassificationHead, join_pairs
from .local_mixing import SFTConvolutionMixing
from .relation import SequencePositions, SFTSequenceRelation

# Offsets between tokens up to which tables over all of them are no burden: beside any tokens, and for each token.
SPAN_OF_ANY = 2**16
SPAN_PER_TOKEN = 16


class SFTSequencePreTrainedModel(SFTPreTrainedModel):
    """Base of the sequence models."""

    config: SFTConfig
    relation_class = SFTSequenceRelation
    main_input_name = "input_ids"
    input_modalities: Any = ("text",)
    _input_embed_layer = "word_embeddings"


class SFTEmbeddings(nn.Module):
    """Token ids, given embeddings or continuous features, plus positions and token types, normalised."""

    def __init__(self, config: SFTConfig):
        super().__init__()
        width = config.hidden_size
        self.position_embedding = config.position_embedding
        self.word_embeddings: Any = None
        if config.vocab_size:
            self.word_embeddings = unit_variance(nn.Embedding(config.vocab_size, width, config.pad_token_id))
        self.feature_proj: Any = None
        if config.num_input_features:
            self.feature_proj = unit_variance_linear(config.num_input_features, width)
        self.position_embeddings = None
        if config.position_embedding == "learned" and config.max_position_embeddings is not None:
            self.position_embeddings = unit_variance(nn.Embedding(config.max_position_embeddings, width))
        self.token_type_embeddings = None
        if config.type_vocab_size:
            self.token_type_embeddings = unit_variance(nn.Embedding(config.type_vocab_size, width))
        self.norm = build_norm(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, states: Tensor, position_ids: Tensor, token_type_ids: Tensor | None, mask: Tensor) -> Tensor:
        """Add to embedded tokens `(B, N, D)` where they stand and of what type they are."""
        if self.position_embeddings is not None:
            states = states + self.position_embeddings(position_ids)
        elif self.position_embedding == "sinusoidal":
            states = states + sinusoids(position_ids, states.shape[-1], states.dtype)
        if self.token_type_embeddings is not None:
            types = torch.zeros_like(position_ids) if token_type_ids is None else token_type_ids
            states = states + self.token_type_embeddings(types)
        return self.dropout(self.norm(states, mask))


def sinusoids(position_ids: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """Sines and cosines of positions `(B, N)` with wavelengths from 2 pi to 20,000 pi, `(B, N, width)`.

    After arXiv 1706.03762, section 3.5; computed in float32 at least.
    """
    half = (width + 1) // 2
    with maybe_autocast(position_ids.device.type, enabled=False):
        precise = torch.promote_types(dtype, torch.float32)
        rates = 10_000.0 ** (-torch.arange(half, device=position_ids.device, dtype=precise) / half)
        angle = position_ids[..., None].to(precise) * rates
        return torch.cat([angle.sin(), angle.cos()], dim=-1)[..., :width].to(dtype)


class SFTModel(SFTSequencePreTrainedModel):
    """The sequence backbone: one state per token.

    Args:
        config: sizes and choices of the model.
    """

    auto_class_name = "AutoModel"

    def __init__(self, config: SFTConfig):
        super().__init__(config)
        self.embeddings = SFTEmbeddings(config)
        self.context_embedding = None
        if config.num_context_kinds and config.context_hash_dim:
            self.context_embedding = SFTContextEmbedding(config)
        self.encoder = SFTEncoder(config, relation=self.relation_class, mixing=SFTConvolutionMixing)
        self.post_init()

    @refuses_unknown_arguments(*FORWARD_OPTIONS)
    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        input_features: Tensor | None = None,
        **kwargs: Any,
    ) -> SFTModelOutput:
        """Encode sequences, given by exactly one of `input_ids`, `inputs_embeds` and `input_features`.

        Args:
            input_ids: `(B, N)` long token ids.
            attention_mask: `(B, N)`, 1 for real tokens and 0 for padding, which may stand on either side.
            position_ids: `(B, N)` long; by default the real tokens of each row are counted from 0. With `relation`,
                those of a row lie within 65,536 of each other, or within 16 for each token if that is more.
            token_type_ids: `(B, N)` long, below `type_vocab_size`; 0 by default.
            inputs_embeds: `(B, N, hidden_size)` float, in place of the token embeddings.
            input_features: `(B, N, num_input_features)` float, best normalised to mean 0 and deviation 1.
            kwargs: `output_hidden_states`, `output_attentions`, `output_sampled_tokens`, `output_importance_scores`,
                `return_dict`.

        Raises:
            TypeError: an unknown argument.
            ValueError: an argument's shape, dtype or values do not fit.
        """
        inputs = self._the_input(input_ids=input_ids, inputs_embeds=inputs_embeds, input_features=input_features)
        mask = resolve_mask(attention_mask, inputs)
        states = self._embed(input_ids, inputs_embeds, input_features, mask)
        hashes = self._hash_context(input_ids, mask)
        if self.context_embedding is not None and hashes is not None:
            states = states + self.context_embedding(hashes)
        if position_ids is None:
            position_ids = (mask.long().cumsum(1) - 1).clamp(min=0)
            span = mask.shape[1] - 1
        else:
            position_ids, span = self._check_positions(position_ids, mask)
        self._check_length(position_ids)
        token_type_ids = self._check_token_types(token_type_ids, mask)
        hidden_states = self.embeddings(states, position_ids, token_type_ids, mask)
        output_attentions = bool(kwargs.get("output_attentions", self.config.output_attentions))
        positions = SequencePositions(position_ids, span) if self.config.relation else None
        hidden_states = self.encoder(hidden_states, mask, positions, output_attentions)
        return SFTModelOutput(last_hidden_state=hidden_states, context_hashes=hashes)

    @staticmethod
    def _the_input(**inputs: Tensor | None) -> Tensor:
        given = {name: value for name, value in inputs.items() if value is not None}
        if len(given) != 1:
            names = ", ".join(f"`{name}`" for name in inputs)
            found = ", ".join(f"`{name}`" for name in given) or "none"
            raise ValueError(f"Give exactly one of {names}: got {found}.")
        name, value = next(iter(given.items()))
        if value.dim() != (2 if name == "input_ids" else 3):
            expected = "(batch, tokens)" if name == "input_ids" else "(batch, tokens, features)"
            raise ValueError(f"`{name}` has shape {tuple(value.shape)}: expected {expected}.")
        if 0 in value.shape[:2]:
            raise ValueError(f"`{name}` has shape {tuple(value.shape)}: give at least one row and one token.")
        return value

    def _embed(
        self, input_ids: Tensor | None, inputs_embeds: Tensor | None, input_features: Tensor | None, mask: Tensor
    ) -> Tensor:
        """Validate the input and embed it, padding as zeros: `(B, N, D)`."""
        padding = ~mask
        if input_ids is not None:
            if self.embeddings.word_embeddings is None:
                raise ValueError("`input_ids` was given to a model without `vocab_size`: pass `input_features`.")
            # Padding may hold anything; position 0 of the table is as good as any.
            input_ids = input_ids.masked_fill(padding, 0)
            vocab_size = self.embeddings.word_embeddings.num_embeddings
            ids = check_range("input_ids", input_ids, 0, vocab_size, "Does the tokenizer belong to this model?")
            return self.embeddings.word_embeddings(ids)
        if inputs_embeds is not None:
            check_shape("inputs_embeds", inputs_embeds, (*mask.shape, self.config.hidden_size), "one state per token")
            check_finite("inputs_embeds", inputs_embeds, mask)
            return inputs_embeds.masked_fill(padding[..., None], 0.0)
        assert input_features is not None
        if self.embeddings.feature_proj is None:
            raise ValueError("`input_features` was given to a model with `num_input_features=0`: pass `input_ids`.")
        features = self.config.num_input_features
        check_shape("input_features", input_features, (*mask.shape, features), "`num_input_features` per step")
        check_finite("input_features", input_features, mask)
        input_features = input_features.masked_fill(padding[..., None], 0.0)
        return self.embeddings.feature_proj(input_features.to(self.embeddings.feature_proj.weight.dtype))

    def _hash_context(self, input_ids: Tensor | None, mask: Tensor) -> ContextHashes | None:
        """The neighbourhoods of checked token ids, if the model hashes them."""
        config = self.config
        if not config.num_context_kinds:
            return None
        if input_ids is None:
            raise ValueError("This model hashes neighbourhoods of token ids: pass `input_ids`.")
        sizes, words = config.context_hash_sizes or [], config.context_hash_words
        return sequence_hashes(input_ids, mask, sizes, words, config.context_hash_seed)

    def _check_positions(self, position_ids: Tensor, mask: Tensor) -> tuple[Tensor, int]:
        """Given positions, and the largest difference of two in a row; padding gets the smallest of its row."""
        if position_ids.dim() == 1 or (position_ids.dim() == 2 and len(position_ids) == 1):
            position_ids = position_ids.expand(len(mask), -1)
        check_shape("position_ids", position_ids, tuple(mask.shape), "one position per token")
        position_ids = position_ids.masked_fill(~mask, 0)
        position_ids = check_range("position_ids", position_ids, 0, 2**31, "Positions count from 0.")
        if not self.config.relation:
            return position_ids, 0
        first = position_ids.masked_fill(~mask, 2**31).amin(1, keepdim=True)
        position_ids = torch.where(mask, position_ids, first)
        span = int((position_ids - first).max())
        limit = max(SPAN_OF_ANY, SPAN_PER_TOKEN * mask.shape[1])
        if span > limit:
            raise ValueError(
                f"`position_ids` of a row differ by up to {span}: with `relation`, {mask.shape[1]} tokens may differ "
                f"by at most {limit}."
            )
        return position_ids, span

    def _check_length(self, position_ids: Tensor) -> None:
        limit = self.config.max_position_embeddings
        if self.config.position_embedding != "learned" or limit is None or not can_check_values(position_ids):
            return
        longest = int(position_ids.max()) + 1
        if longest > limit:
            raise ValueError(
                f"A sequence needs {longest} positions and the model has learned {limit}: truncate to "
                f"`max_position_embeddings={limit}` tokens (the tokenizer's `max_length`), or train a model with "
                '`position_embedding="sinusoidal"`, which has no largest length.'
            )

    def _check_token_types(self, token_type_ids: Tensor | None, mask: Tensor) -> Tensor | None:
        if token_type_ids is None:
            return None
        check_shape("token_type_ids", token_type_ids, tuple(mask.shape), "one type per token")
        token_type_ids = token_type_ids.masked_fill(~mask, 0)
        # Tokenizers of other models send zeros to everyone.
        types = max(1, self.config.type_vocab_size)
        remedy = "See `type_vocab_size` of the configuration."
        token_type_ids = check_range("token_type_ids", token_type_ids, 0, types, remedy)
        return token_type_ids if self.config.type_vocab_size else None


class SFTForMaskedLM(SFTSequencePreTrainedModel):
    """Predicts masked tokens; the output layer shares its weights with the token embeddings.

    Args:
        config: with `vocab_size`.

    Raises:
        ValueError: the configuration has no vocabulary.
    """

    _tied_weights_keys = {"lm_head.decoder.weight": "sft.embeddings.word_embeddings.weight"}

    auto_class_name = "AutoModelForMaskedLM"

    def __init__(self, config: SFTConfig):
        super().__init__(config)
        if not config.vocab_size:
            raise ValueError("`vocab_size` is 0: masked tokens cannot be predicted without a vocabulary.")
        self.sft = SFTModel(config)
        self.lm_head = SFTMaskedLMHead(config)
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        """The layer from states to the vocabulary."""
        return self.lm_head.decoder

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replace the layer from states to the vocabulary."""
        self.lm_head.decoder = new_embeddings

    @refuses_unknown_arguments(*FORWARD_OPTIONS)
    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> SFTClassifierOutput:
        """Predict tokens.

        Args:
            labels: `(B, N)` long token ids, -100 where nothing was masked. Those of padding are ignored.

        The other arguments are those of [`SFTModel`]. The logits are `(B, N, vocab_size)`.

        Raises:
            TypeError: an unknown argument.
            ValueError: an argument's shape, dtype or values do not fit.
        """
        num_items_in_batch = kwargs.pop("num_items_in_batch", None)
        outputs = self.sft(input_ids, attention_mask, position_ids, token_type_ids, inputs_embeds, **kwargs)
        logits = self.lm_head(outputs.last_hidden_state)
        loss = None
        if labels is not None:
            check_shape("labels", labels, tuple(logits.shape[:2]), "one token id per token")
            tokens = labels.long().masked_fill(~resolve_mask(attention_mask, logits), -100)
            loss = share_of_step(class_loss("labels", logits, tokens), labels, num_items_in_batch)
        return SFTClassifierOutput.of(outputs, logits, loss)


class SFTForPreTraining(SFTSequencePreTrainedModel):
    """Predicts which neighbourhoods a whole text has, before labels are seen.

    Classifiers of texts start from its backbone and its readout of counts.

    Args:
        config: with `context_hash_sizes` or `context_hash_words`, and `context_hash_dropout` above 0: the counts are
            to predict what dropout takes from them.

    Raises:
        ValueError: the configuration counts no neighbourhoods.
    """

    auto_class_name = "AutoModelForPreTraining"

    def __init__(self, config: SFTConfig):
        super().__init__(config)
        self.sft = SFTModel(config)
        self.classifier = SFTPreTrainingHead(config)
        self.post_init()

    @refuses_unknown_arguments(*FORWARD_OPTIONS)
    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> SFTPreTrainingOutput:
        """The loss of texts; arguments are those of [`SFTModel`].

        Raises:
            TypeError: an unknown argument.
            ValueError: an argument's shape, dtype or values do not fit.
        """
        # Trainer weights its batches by labels, which there are none of.
        kwargs.pop("num_items_in_batch", None)
        outputs = self.sft(input_ids, attention_mask, position_ids, token_type_ids, **kwargs)
        mask = resolve_mask(attention_mask, outputs.last_hidden_state)
        losses = self.classifier(outputs.last_hidden_state, mask, outputs.context_hashes)
        return SFTPreTrainingOutput(loss=losses.mean(), row_losses=losses, **recorded(outputs))


class SFTSequenceLabelModel(SFTSequencePreTrainedModel):
    """Base of the heads that label whole sequences, or their tokens."""

    head_class: ClassVar[type[nn.Module]]

    def __init__(self, config: SFTConfig):
        super().__init__(config)
        self.sft = SFTModel(config)
        self.classifier = self.head_class(config)
        self.post_init()

    @refuses_unknown_arguments(*FORWARD_OPTIONS)
    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        input_features: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> SFTClassifierOutput:
        """Label sequences or tokens.

        Args:
            labels: see the class.

        The other arguments are those of [`SFTModel`]. The logits are `(B, num_labels)`, or `(B, N, num_labels)` of
        tokens.

        Raises:
            TypeError: an unknown argument.
            ValueError: an argument's shape, dtype or values do not fit.
        """
        num_items_in_batch = kwargs.pop("num_items_in_batch", None)
        outputs = self.sft(
            input_ids, attention_mask, position_ids, token_type_ids, inputs_embeds, input_features, **kwargs
        )
        mask = resolve_mask(attention_mask, outputs.last_hidden_state)
        return answer(self.classifier, outputs, mask, labels, self.config, num_items_in_batch)


class SFTForSequenceClassification(SFTSequenceLabelModel):
    """Classification, multi-label classification or regression of whole sequences, by `config.problem_type`.

    Labels are `(B,)` long classes, -100 for missing; `(B, num_labels)` float for several labels or targets.

    Args:
        config: with `num_labels` or `id2label`, and `pooling`.
    """

    auto_class_name: ClassVar[str | None] = "AutoModelForSequenceClassification"
    head_class: ClassVar[type[nn.Module]] = SFTClassificationHead


class SFTForTokenClassification(SFTSequenceLabelModel):
    """A label for every token.

    Labels are `(B, N)` long, -100 for tokens without label; `(B, N, num_labels)` float for several labels or targets
    per token. Those of padding are ignored.

    Args:
        config: with `num_labels` or `id2label`.
    """

    auto_class_name = "AutoModelForTokenClassification"
    head_class = SFTTokenHead


class SFTForQuestionAnswering(SFTSequencePreTrainedModel):
    """Finds the answer in a text: scores of every token as its first and as its last one.

    Args:
        config: `type_vocab_size=2` lets question and context be told apart.
    """

    auto_class_name = "AutoModelForQuestionAnswering"

    def __init__(self, config: SFTConfig):
        super().__init__(config)
        self.sft = SFTModel(config)
        self.qa_outputs = SFTTokenHead(config, 2)
        self.post_init()

    @refuses_unknown_arguments(*FORWARD_OPTIONS)
    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        input_features: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        **kwargs: Any,
    ) -> SFTQuestionAnsweringOutput:
        """Find answers.

        Args:
            start_positions, end_positions: `(B,)` long, first and last token of the answer; -100 for none.

        The other arguments are those of [`SFTModel`].

        Raises:
            TypeError: an unknown argument.
            ValueError: an argument's shape, dtype or values do not fit, or one of the two positions is missing.
        """
        kwargs.pop("num_items_in_batch", None)
        outputs = self.sft(
            input_ids, attention_mask, position_ids, token_type_ids, inputs_embeds, input_features, **kwargs
        )
        logits = self.qa_outputs(outputs.last_hidden_state)
        mask = resolve_mask(attention_mask, logits)
        logits = logits.masked_fill(~mask[..., None], torch.finfo(logits.dtype).min)
        start_logits, end_logits = logits.unbind(-1)
        loss = None
        if start_positions is not None or end_positions is not None:
            if start_positions is None or end_positions is None:
                raise ValueError("Give `start_positions` and `end_positions` together.")
            start_loss = _position_loss("start_positions", start_logits, start_positions, mask)
            loss = (start_loss + _position_loss("end_positions", end_logits, end_positions, mask)) / 2
        return SFTQuestionAnsweringOutput(
            loss=loss, start_logits=start_logits, end_logits=end_logits, **recorded(outputs)
        )


def _position_loss(name: str, logits: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of positions `(B,)` given logits and mask `(B, N)`."""
    check_shape(name, positions, (len(mask),), "one token per row")
    positions = positions.long()
    loss = class_loss(name, logits, positions)
    if can_check_values(mask) and not bool(mask.gather(1, positions.clamp(min=0)[:, None])[positions >= 0].all()):
        raise ValueError(f"`{name}` names a padded token: use -100 where the answer was cut off.")
    return loss


class SFTForSequencePairClassification(SFTSequencePreTrainedModel):
    """Classifies pairs of sequences, each encoded by itself (Long Range Arena's retrieval, arXiv 2011.04006).

    Args:
        config: with `num_labels` or `id2label`, and `pooling`.
    """

    auto_class_name = "AutoModelForSequencePairClassification"

    def __init__(self, config: SFTConfig):
        super().__init__(config)
        self.loss_type = "ForSequenceClassification"
        self.sft = SFTModel(config)
        self.classifier = SFTPairClassificationHead(config)
        self.post_init()

    @refuses_unknown_arguments(*FORWARD_OPTIONS)
    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pair_input_ids: Tensor | None = None,
        pair_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> SFTClassifierOutput:
        """Classify pairs; both sequences of all pairs go through the encoder in one batch of 2 B rows.

        Args:
            input_ids: `(B, N)` long token ids of the first sequences.
            attention_mask: `(B, N)`, 1 for real tokens.
            pair_input_ids: `(B, M)` long token ids of the second sequences.
            pair_attention_mask: `(B, M)`, 1 for real tokens.
            labels: `(B,)` long classes, -100 for missing; `(B, num_labels)` float for several labels or targets.
            kwargs: as for [`SFTModel`]; what is recorded has 2 B rows, the sequences of a pair one behind the other.

        Raises:
            TypeError: an unknown argument.
            ValueError: an argument's shape, dtype or values do not fit.
        """
        num_items_in_batch = kwargs.pop("num_items_in_batch", None)
        if pair_input_ids is None:
            raise ValueError("`pair_input_ids` is missing: give the second sequences.")
        ids, mask = join_pairs(input_ids, pair_input_ids, attention_mask, pair_attention_mask)
        outputs = self.sft(ids, mask, **kwargs)
        return answer(self.classifier, outputs, mask, labels, self.config, num_items_in_batch)


__all__ = [
    "SFTForMaskedLM",
    "SFTForPreTraining",
    "SFTForQuestionAnswering",
    "SFTForSequenceClassification",
    "SFTForSequencePairClassification",
    "SFTForTokenClassification",
    "SFTModel",
    "SFTSequencePreTrainedModel",
]
