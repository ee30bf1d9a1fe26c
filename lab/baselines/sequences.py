"""BERT and Nystromformer behind the inputs and the readout of SFT's sequence classifiers.

The embedding of token ids or features starts as small as the encoders' learned positions, which are added to it.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils.generic import can_return_tuple

from modeling_sft.encoder.heads import SFTClassificationHead
from modeling_sft.encoder.losses import classification_loss, share_of_step
from modeling_sft.encoder.outputs import SFTClassifierOutput
from modeling_sft.nn.checks import check_finite, check_range, check_shape, resolve_mask
from modeling_sft.nn.initialization import start_with_unit_variance
from modeling_sft.sequence.heads import SFTPairClassificationHead, join_pairs

from .sequence_encoders import NUM_TOKEN_TYPES, BertEncoder, NystromformerEncoder, SequenceBaselineConfig


class SequenceBaseline(PreTrainedModel):
    """Token or feature embedding and encoder; subclasses choose the encoder and add a readout."""

    config: SequenceBaselineConfig
    main_input_name = "input_ids"
    encoder_class: type[nn.Module]

    def __init__(self, config: SequenceBaselineConfig) -> None:
        super().__init__(config)
        self.input_embedding: nn.Module
        if config.num_input_features:
            self.input_embedding = nn.Linear(config.num_input_features, config.hidden_size)
        else:
            self.input_embedding = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.encoder = self.encoder_class(config)
        self.classifier = self.build_classifier(config)
        self.post_init()

    def build_classifier(self, config: SequenceBaselineConfig) -> nn.Module:
        """The readout."""
        raise NotImplementedError

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise the readout as in SFT; the encoder keeps its library's initialisation."""
        super()._init_weights(module)
        start_with_unit_variance(module)

    def encode(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        input_features: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Token states `(B, N, D)` and the mask as bool `(B, N)`; arguments as in `forward` of the subclasses.

        Raises:
            ValueError: an argument's shape, dtype or values do not fit.
        """
        config = self.config
        wanted, refused = (
            ("input_features", "input_ids") if config.num_input_features else ("input_ids", "input_features")
        )
        given = {"input_ids": input_ids, "input_features": input_features}
        inputs = given[wanted]
        if inputs is None or given[refused] is not None:
            raise ValueError(
                f"`{wanted}` must be given, `{refused}` not: `num_input_features` is {config.num_input_features}."
            )
        expected = (None, None, config.num_input_features) if config.num_input_features else (None, None)
        check_shape(wanted, inputs, expected, "(batch, tokens) and, for continuous inputs, features")
        if inputs.shape[1] > config.max_position_embeddings:
            raise ValueError(
                f"`{wanted}` has {inputs.shape[1]} tokens: `max_position_embeddings` of the configuration is "
                f"{config.max_position_embeddings}; truncate, or configure the model for more."
            )
        mask = resolve_mask(attention_mask, inputs)
        # Padding may hold anything, even NaN, so it is zeroed before it can reach a sum.
        if config.num_input_features:
            if not inputs.is_floating_point():
                raise ValueError(f"`input_features` has dtype {inputs.dtype}: use floating-point features.")
            check_finite(wanted, inputs, mask)
            inputs = inputs.masked_fill(~mask[..., None], 0).to(self.dtype)
        else:
            inputs = inputs.masked_fill(~mask, 0)
            check_range(wanted, inputs, 0, config.vocab_size, "See `vocab_size`.")
        if token_type_ids is not None:
            check_shape("token_type_ids", token_type_ids, tuple(mask.shape), "one type per token")
            check_range("token_type_ids", token_type_ids, 0, NUM_TOKEN_TYPES, "Types are 0 and 1.")
        embeddings = self.input_embedding(inputs).masked_fill(~mask[..., None], 0)
        return self.encoder(embeddings, mask, token_type_ids), mask

    def output(self, logits: Tensor, labels: Tensor | None, kwargs: dict[str, Any]) -> SFTClassifierOutput:
        """Logits and, with labels, the loss."""
        loss = None
        if labels is not None:
            loss = classification_loss(logits, labels, self.config)
            loss = share_of_step(loss, labels, kwargs.get("num_items_in_batch"))
        return SFTClassifierOutput(loss=loss, logits=logits)


class SequenceClassificationBaseline(SequenceBaseline):
    """A baseline with the interface of `SFTForSequenceClassification`."""

    def build_classifier(self, config: SequenceBaselineConfig) -> nn.Module:
        return SFTClassificationHead(cast(Any, config))

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        input_features: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> SFTClassifierOutput:
        """Classify sequences, or regress on them.

        Args:
            input_ids: `(B, N)` long, for models of token ids.
            attention_mask: `(B, N)`, 1 for real tokens and 0 for padding.
            input_features: `(B, N, num_input_features)` float, for models of continuous features.
            token_type_ids: `(B, N)` long, 0 or 1.
            labels: `(B,)` long classes, -100 for missing; `(B, num_labels)` float for several labels or targets.
            kwargs: `num_items_in_batch`, `return_dict`.

        Raises:
            ValueError: an argument's shape, dtype or values do not fit.
        """
        states, mask = self.encode(input_ids, attention_mask, input_features, token_type_ids)
        return self.output(self.classifier(states, mask), labels, kwargs)


class SequencePairClassificationBaseline(SequenceBaseline):
    """A baseline with the interface of `SFTForSequencePairClassification`: one encoder for both texts."""

    def build_classifier(self, config: SequenceBaselineConfig) -> nn.Module:
        if config.num_input_features:
            raise ValueError(f"`num_input_features` is {config.num_input_features}: pairs are of token ids; use 0.")
        return SFTPairClassificationHead(cast(Any, config))

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pair_input_ids: Tensor | None = None,
        pair_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> SFTClassifierOutput:
        """Classify pairs of texts; both texts of all pairs go through the encoder in one batch of 2 B rows.

        Args:
            input_ids: `(B, N)` long.
            attention_mask: `(B, N)`, 1 for real tokens and 0 for padding.
            pair_input_ids: `(B, M)` long, the second texts.
            pair_attention_mask: `(B, M)`.
            labels: as in [`SequenceClassificationBaseline`].
            kwargs: `num_items_in_batch`, `return_dict`.

        Raises:
            ValueError: an argument's shape, dtype or values do not fit.
        """
        if input_ids is None or pair_input_ids is None:
            missing = "input_ids" if input_ids is None else "pair_input_ids"
            raise ValueError(f"`{missing}` is missing: give both texts of each pair.")
        ids, mask = join_pairs(input_ids, pair_input_ids, attention_mask, pair_attention_mask)
        states, mask = self.encode(ids, mask)
        return self.output(self.classifier(states, mask), labels, kwargs)


class BertBaselineForSequenceClassification(SequenceClassificationBaseline):
    """BERT (arXiv 1810.04805) with SFT's readout."""

    encoder_class = BertEncoder


class BertBaselineForSequencePairClassification(SequencePairClassificationBaseline):
    """BERT (arXiv 1810.04805) for pairs."""

    encoder_class = BertEncoder


class NystromformerBaselineForSequenceClassification(SequenceClassificationBaseline):
    """Nystromformer (arXiv 2102.03902) with SFT's readout."""

    encoder_class = NystromformerEncoder


class NystromformerBaselineForSequencePairClassification(SequencePairClassificationBaseline):
    """Nystromformer (arXiv 2102.03902) for pairs."""

    encoder_class = NystromformerEncoder
