"""Tasks on sequences: classification, regression, pairs, and pre-training without labels."""

from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import (
    AutoFeatureExtractor,
    AutoTokenizer,
    EvalPrediction,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ...data.items import read_column
from ...data.metrics import masked_token_metrics, regression_metrics
from ...data.sequence.collators import SequenceCollator
from ...data.sequence.datasets import PreparedSequences
from ...data.sequence.masked_texts import ChunkedText, EpochMasks, FixedMasks, TokenMasking
from ...data.sequence.readers import SEQUENCE_READERS, load_sequence_dataset
from ...sequence.feature_extraction import SFTSequenceFeatureExtractor
from ...sequence.modeling_sft import (
    SFTForMaskedLM,
    SFTForPreTraining,
    SFTForSequenceClassification,
    SFTForSequencePairClassification,
)
from ...sequence.tokenization import byte_pair_tokenizer, byte_tokenizer, list_ops_tokenizer
from ..recipe import Recipe
from .pretrained import load_pretrained, pretrained_config
from .task import ClassificationTask, Task, register_task

TOKENIZERS: dict[str, Callable[..., Any]] = {"bytes": byte_tokenizer, "list_ops": list_ops_tokenizer}
TRAINED_TOKENIZER = "bpe"
"""The name of the tokenizer whose vocabulary is that of the training texts."""


def build_sequence_processor(
    texts: Iterable[str] = (),
    /,
    tokenizer: str | None = None,
    max_length: int | None = None,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    feature_size: int = 1,
    vocab_size: int | None = None,
    lowercase: bool | None = None,
) -> Any:
    """What turns rows into model inputs: a tokenizer for texts, a feature extractor for continuous values.

    Args:
        texts: the training texts, for `"bpe"` alone.
        tokenizer: `"bpe"` (byte pairs, trained on the texts), `"bytes"`, `"list_ops"`, or the folder or Hub name of
            any tokenizer; `None` for continuous values.
        max_length: tokens or steps of each sequence to keep, from its beginning.
        mean, std: what to normalize values by, one number per feature; for continuous values alone.
        feature_size: features per step of continuous values.
        vocab_size, lowercase: of `"bpe"`, see [`byte_pair_tokenizer`]; by default 8,192 ids and texts as written.

    Raises:
        ValueError: a value does not fit, or the tokenizer cannot be loaded.
    """
    given = {"vocab_size": vocab_size, "lowercase": lowercase}
    trained: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if trained and tokenizer != TRAINED_TOKENIZER:
        raise ValueError(
            f"`processor.{next(iter(trained))}` is for `processor.tokenizer` {TRAINED_TOKENIZER}, which a new model "
            "trains; remove it."
        )
    if tokenizer is None:
        return SFTSequenceFeatureExtractor(feature_size, mean, std, max_length)
    if mean is not None or std is not None or feature_size != 1:
        raise ValueError("`processor.mean`, `std` and `feature_size` are for continuous values: remove `tokenizer`.")
    if tokenizer == TRAINED_TOKENIZER:
        return byte_pair_tokenizer(texts, **trained, model_max_length=max_length)
    if tokenizer in TOKENIZERS:
        return TOKENIZERS[tokenizer](max_length)
    try:
        loaded = AutoTokenizer.from_pretrained(tokenizer)
    except (OSError, ValueError) as error:
        known = ", ".join((TRAINED_TOKENIZER, *TOKENIZERS))
        raise ValueError(
            f"`processor.tokenizer` {tokenizer!r} is none of {known}, and no tokenizer could be loaded from a folder "
            f"or the Hub by that name: {error}"
        ) from error
    if max_length is not None:
        loaded.model_max_length = max_length
    return loaded


class SequenceTask(Task):
    """What all tasks on sequences share: data, tokenizer or feature extractor, collator."""

    processor_class = staticmethod(build_sequence_processor)
    readers = SEQUENCE_READERS
    load_dataset = staticmethod(load_sequence_dataset)
    names_from_data = (*Task.names_from_data, "vocab_size", "num_input_features", "pad_token_id")
    pair: ClassVar[bool] = False

    def check_processor(self, recipe: Recipe) -> None:
        # A trained model has its tokenizer beside it: where that came from need not exist any more.
        if recipe.processor.get("tokenizer") in (None, TRAINED_TOKENIZER, *TOKENIZERS):
            # A tokenizer that is trained is tried on a text of one pair.
            build_sequence_processor(["abab"], **recipe.processor)

    def fit_processor(self, recipe: Recipe, data_dir: str | Path | None) -> Any:
        if recipe.processor.get("tokenizer") != TRAINED_TOKENIZER:
            return self.build_processor(recipe)
        if recipe.pretrained is not None:
            # Its embeddings belong to the ids of its own tokenizer.
            return build_sequence_processor(**recipe.processor | {"tokenizer": recipe.pretrained})
        # Labels play no part, so texts whose labels `train_fraction` leaves out are read as well.
        whole = recipe.model_copy(update={"dataset": recipe.dataset | {"train_fraction": 1.0}})
        rows = self.load_rows(whole, data_dir, "train")
        columns = ("text", "text_pair") if "text_pair" in rows.column_names else ("text",)
        texts = chain.from_iterable(read_column(rows, column) for column in columns)
        return build_sequence_processor(texts, **recipe.processor)

    def load_processor(self, folder: str | Path) -> Any:
        is_extractor = (Path(folder) / "preprocessor_config.json").is_file()
        return (AutoFeatureExtractor if is_extractor else AutoTokenizer).from_pretrained(folder)

    def build_model(self, recipe: Recipe, rows: Any, processor: Any) -> PreTrainedModel:
        fields = self.input_fields(processor) | self.output_fields(rows)
        model_class = self.model_class_of(recipe)
        if recipe.pretrained is None:
            return model_class(model_class.config_class(**recipe.model, **fields))
        config: Any = pretrained_config(model_class, recipe.pretrained)
        if config.vocab_size != fields["vocab_size"]:
            raise ValueError(
                f"`pretrained` {recipe.pretrained!r} has {config.vocab_size} token ids and the recipe's tokenizer "
                f"{fields['vocab_size']}: set `processor.tokenizer` to that of the pretrained model."
            )
        return load_pretrained(model_class, recipe.pretrained, recipe.model | fields)

    def input_fields(self, processor: Any) -> dict[str, Any]:
        """Fields of the configuration that the tokenizer or feature extractor decides."""
        if isinstance(processor, PreTrainedTokenizerBase):
            return {"vocab_size": len(processor), "pad_token_id": processor.pad_token_id}
        return {"vocab_size": 0, "num_input_features": processor.feature_size}

    def prepare(self, rows: Any, processor: Any, seed: int, augmentation: Any | None = None) -> Dataset:
        return PreparedSequences(rows, processor, pair=self.pair)

    def build_collator(self, processor: Any, config: PreTrainedConfig) -> Callable[[Any], dict]:
        return SequenceCollator(processor, config=config)


@register_task
class SequenceClassificationTask(ClassificationTask, SequenceTask):
    """Classification of sequences: accuracy, with a validation split stratified by label."""

    name = "sequence-classification"
    model_class: ClassVar[Any] = SFTForSequenceClassification
    column = "label"
    other_tasks = "`sequence-regression` on numbers, and with `Trainer` on several labels per sequence"


@register_task
class SequencePairClassificationTask(SequenceClassificationTask):
    """Classification of pairs of texts, each encoded by itself."""

    name = "sequence-pair-classification"
    model_class: ClassVar[Any] = SFTForSequencePairClassification
    pair = True


@register_task
class SequenceRegressionTask(SequenceTask):
    """A number for every sequence: mean absolute error."""

    name = "sequence-regression"
    model_class = SFTForSequenceClassification
    main_metric = "mean_absolute_error"
    greater_is_better = False
    plain_metrics = ("mean_absolute_error", "root_mean_squared_error", "r2")

    def output_fields(self, rows: Any) -> dict[str, Any]:
        if not str(getattr(rows.features.get("label"), "dtype", "")).startswith("float"):
            raise ValueError(
                "`dataset` has no numbers in its column `label`: train `sequence-classification` on classes."
            )
        return {"num_labels": 1, "problem_type": "regression"}

    def check_labels(self, config: PreTrainedConfig, rows: Any) -> None:
        if config.problem_type != "regression":
            raise ValueError(f"The model was trained for {config.problem_type}, not for regression.")

    def compute_metrics(self, evaluation: EvalPrediction, config: PreTrainedConfig) -> dict[str, float]:
        return regression_metrics(evaluation.predictions, evaluation.label_ids)


@register_task
class PreTrainingTask(SequenceTask):
    """Which neighbourhoods a text has, for classifiers to start from by `pretrained`; labels are not read."""

    name = "pre-training"
    model_class = SFTForPreTraining
    main_metric = "cross_entropy"
    greater_is_better = False
    plain_metrics = ("cross_entropy",)

    def check_labels(self, config: PreTrainedConfig, rows: Any) -> None:
        pass

    def prepare(self, rows: Any, processor: Any, seed: int, augmentation: Any | None = None) -> Dataset:
        return PreparedSequences(rows, processor, target=None)

    def label_names(self, config: PreTrainedConfig) -> list[str] | None:
        # What is predicted is part of the input.
        return ["input_ids"]

    def compute_metrics(self, evaluation: EvalPrediction, config: PreTrainedConfig) -> dict[str, float]:
        return {"cross_entropy": float(np.mean(evaluation.predictions))}


@register_task
class MaskedLanguageModelingTask(SequenceTask):
    """Prediction of masked tokens, in texts that are joined and cut into blocks of `processor.max_length` tokens.

    Masks of the training data are drawn anew in every epoch, as the recipe's `augmentation` says. Those of other
    splits are drawn once, from the seed, of single tokens with a probability of 0.15, so that figures can be compared.
    """

    name = "masked-language-modeling"
    model_class = SFTForMaskedLM
    augmentation_class = TokenMasking
    main_metric = "bits_per_token"
    greater_is_better = False
    plain_metrics = ("cross_entropy", "bits_per_token", "perplexity")

    def validate(self, recipe: Recipe) -> None:
        super().validate(recipe)
        if recipe.processor.get("tokenizer") is None or recipe.processor.get("max_length") is None:
            raise ValueError(
                "`processor.tokenizer` and `processor.max_length` are missing: texts are cut into blocks."
            )

    def check_labels(self, config: PreTrainedConfig, rows: Any) -> None:
        pass

    def prepare(self, rows: Any, processor: Any, seed: int, augmentation: Any | None = None) -> Dataset:
        return FixedMasks(ChunkedText(rows, processor, processor.model_max_length), processor, seed)

    def prepare_training(self, rows: Any, processor: Any, seed: int, augmentation: Any | None = None) -> Dataset:
        return EpochMasks(ChunkedText(rows, processor, processor.model_max_length), processor, seed, augmentation)

    def build_collator(self, processor: Any, config: PreTrainedConfig) -> Callable[[Any], dict]:
        # The labels are tokens that the tokenizer made, and no classes of the configuration.
        return SequenceCollator(processor)

    def preprocess_logits(self, config: PreTrainedConfig) -> Callable[[Any, Any], Any] | None:
        def score(logits: Any, labels: Any) -> Any:
            """Of each token, the loss and whether the best guess is right: `(B, N, 2)`, not all logits."""
            targets = labels.clamp(min=0)
            loss = torch.nn.functional.cross_entropy(logits.float().mT, targets, reduction="none")
            return torch.stack([loss, (logits.argmax(-1) == targets).float()], dim=-1)

        return score

    def compute_metrics(self, evaluation: EvalPrediction, config: PreTrainedConfig) -> dict[str, float]:
        return masked_token_metrics(evaluation.predictions, evaluation.label_ids)
