"""Encoders of other authors for sequences, from Transformers, as published: post-norm, learned positions, token types.

Both take embeddings: tokens and continuous features are embedded outside, in the same way for all encoders.
"""

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import BertConfig, BertModel, NystromformerConfig, NystromformerModel, PreTrainedConfig
from transformers.activations import ACT2FN

NUM_TOKEN_TYPES = 2


@strict
class SequenceBaselineConfig(PreTrainedConfig):
    """Configuration of BERT and Nystromformer as baselines for sequences.

    Args:
        vocab_size: token ids; unused by models of continuous features.
        num_input_features: continuous features per step, in place of token ids; 0 for models of token ids.
        max_position_embeddings: the largest length. Nystromformer pads every input to this length, so set it to the
            longest sequence of the data.
        hidden_size, num_hidden_layers, num_attention_heads, intermediate_size: sizes of the encoder.
        hidden_act: activation of the feed-forward layers and of the readout.
        hidden_dropout_prob, attention_probs_dropout_prob: rates of dropout.
        pooling: how the readout pools tokens, as in SFT.
        num_landmarks: landmarks of Nystromformer, fewer than `max_position_embeddings`.
        conv_kernel_size: width of Nystromformer's convolution of the values, odd.
        pad_token_id: the token whose embedding stays zero; None with continuous features.

    Raises:
        ValueError: a field is out of its range.
    """

    model_type = "sequence_baseline"
    num_context_counts: ClassVar[int] = 0

    vocab_size: int = 260
    num_input_features: int = 0
    max_position_embeddings: int = 512
    hidden_size: int = 256
    num_hidden_layers: int = 6
    num_attention_heads: int = 8
    intermediate_size: int = 1024
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    pooling: Literal["attention", "mean", "max", "first"] = "attention"
    num_landmarks: int = 64
    conv_kernel_size: int = 65
    pad_token_id: int | None = 0

    def __post_init__(self, **kwargs: Any) -> None:
        if self.num_input_features:
            self.pad_token_id = None
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Check ranges and combinations of fields; runs whenever a configuration is made."""
        super().validate_architecture()
        sizes = ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"]
        sizes += ["max_position_embeddings", "num_landmarks", "conv_kernel_size"]
        for name in sizes if self.num_input_features else [*sizes, "vocab_size"]:
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}: use an integer of at least 1.")
        if self.num_input_features < 0:
            raise ValueError(f"`num_input_features` is {self.num_input_features}: use 0 for token ids, or more.")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(f"`hidden_size` is {self.hidden_size}: use a multiple of `num_attention_heads`.")
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"`hidden_act` is {self.hidden_act!r}: use one of {', '.join(sorted(ACT2FN))}.")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}: use a probability, at least 0 and below 1.")
        if self.conv_kernel_size % 2 == 0:
            raise ValueError(f"`conv_kernel_size` is {self.conv_kernel_size}: use an odd number.")
        known = self.pad_token_id is None or 0 <= self.pad_token_id < self.vocab_size
        if not known:
            raise ValueError(f"`pad_token_id` is {self.pad_token_id}: use None or a token id below `vocab_size`.")

    def library_fields(self) -> dict[str, Any]:
        """Fields of both libraries' configurations; as their own embeddings are replaced, the vocabulary is 1."""
        names = (
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "hidden_act",
            "hidden_dropout_prob",
            "attention_probs_dropout_prob",
            "max_position_embeddings",
        )
        fields = {name: getattr(self, name) for name in names}
        return fields | {"vocab_size": 1, "pad_token_id": 0, "type_vocab_size": NUM_TOKEN_TYPES}


class BertEncoder(nn.Module):
    """BERT (arXiv 1810.04805) with PyTorch's scaled dot-product attention."""

    def __init__(self, config: SequenceBaselineConfig) -> None:
        super().__init__()
        library_config = BertConfig(**config.library_fields() | {"attn_implementation": "sdpa"})
        self.model = BertModel(library_config, add_pooling_layer=False)
        self.model.set_input_embeddings(None)

    def forward(self, embeddings: Tensor, mask: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """Encode `(B, N, D)` under the mask `(B, N)`; padding does not change the states of real tokens."""
        outputs = self.model(inputs_embeds=embeddings, attention_mask=mask, token_type_ids=token_type_ids)
        return outputs.last_hidden_state


class NystromformerEncoder(nn.Module):
    """Nystromformer (arXiv 2102.03902) at one fixed length, the only one that its code takes; inputs are padded to it.

    Padding gets no attention weight, but takes part in the means that make the landmarks, and in the convolution at
    the end of a sequence. As the length is fixed and padding is embedded as zeros, its effect is the same in all
    batches. Yet the iterative inverse starts from a maximum over the whole batch, so the output of a row changes with
    the other rows, though little for small weights.

    Raises:
        ValueError: the landmarks are not fewer than the tokens.
    """

    def __init__(self, config: SequenceBaselineConfig) -> None:
        super().__init__()
        landmarks = config.num_landmarks
        if landmarks >= config.max_position_embeddings:
            raise ValueError(
                f"`num_landmarks` is {landmarks}: use fewer than `max_position_embeddings` "
                f"({config.max_position_embeddings}), or Nystromformer has nothing to approximate."
            )
        # Use a multiple of the landmarks: at other lengths the library fails, or silently mixes rows of the batch.
        self.length = -(-config.max_position_embeddings // landmarks) * landmarks
        fields = config.library_fields() | {"max_position_embeddings": self.length}
        self.model = NystromformerModel(
            NystromformerConfig(
                **fields,
                segment_means_seq_len=self.length,
                num_landmarks=landmarks,
                conv_kernel_size=config.conv_kernel_size,
                bos_token_id=None,
                eos_token_id=None,
            )
        )
        self.model.set_input_embeddings(None)

    def forward(self, embeddings: Tensor, mask: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """Encode `(B, N, D)` under the mask `(B, N)`."""
        length = mask.shape[1]
        missing = self.length - length
        if token_type_ids is not None:
            token_type_ids = F.pad(token_type_ids.masked_fill(~mask, 0), (0, missing))
        states = self.model.embeddings(
            inputs_embeds=F.pad(embeddings, (0, 0, 0, missing)), token_type_ids=token_type_ids
        )
        # Build the mask here: the model's own mask is (N, N) and fails on its (landmarks, N) scores.
        bias = states.new_zeros(states.shape[0], 1, 1, self.length)
        bias = bias.masked_fill(~F.pad(mask, (0, missing))[:, None, None], torch.finfo(states.dtype).min)
        return self.model.encoder(states, attention_mask=bias).last_hidden_state[:, :length]
