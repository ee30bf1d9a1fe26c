"""Counts of words in texts, and trees on the values of continuous sequences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from modeling_sft.hub.optional import import_optional
from modeling_sft.hub.values import require_integer
from modeling_sft.training.estimators import Estimator, Scores, TrainingData
from modeling_sft.training.recipe import Recipe

from .heads import class_scores

STRENGTHS = (1.0, 4.0, 16.0, 64.0)
"""Inverse strengths of regularization that are tried."""
_START = "start_of_text"


@dataclass(frozen=True)
class TextCountsConfig:
    """Settings of [`TextCounts`].

    Args:
        num_bins: entries of the vector of counts; words and pairs of words are hashed into it.
    """

    num_bins: int = 2**20

    def __post_init__(self) -> None:
        require_integer("`model.num_bins`", self.num_bins, 1)


class TextCounts(Estimator):
    """Hashed counts of words and pairs of neighbouring words, weighted by tf-idf, under logistic regression.

    Counts enter as 1 + log(count). With `dataset.train_fraction` below 1, the frequencies of words (idf) are those of
    all training texts, with and without label; labels are read of the share alone. A mark before the first word lets
    pairs tell what a text begins with. Validation chooses the strength of regularization.

    Texts are cut as for models, by the recipe's `processor`: after `max_length` bytes with `tokenizer: bytes`, after
    as many words, separated by blanks, with `tokenizer: list_ops`.
    """

    config_class = TextCountsConfig
    target: ClassVar[str] = "label"
    processor_names = ("tokenizer", "max_length")

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        tokenizer = recipe.processor.get("tokenizer")
        if tokenizer not in ("bytes", "list_ops"):
            raise ValueError(
                f"The baseline {recipe.baseline} cuts texts after bytes or after words: set `processor.tokenizer` to "
                f"bytes or list_ops, got {tokenizer!r}."
            )

    def choices(self) -> Sequence[dict[str, Any]]:
        return [{"strength": strength} for strength in STRENGTHS]

    def features(self, rows: Any) -> Any:
        """Counts `(n, num_bins)`, sparse float64."""
        text = import_optional("sklearn.feature_extraction.text", "sequences")
        hasher = text.HashingVectorizer(
            ngram_range=(1, 2),
            token_pattern=r"\w+",
            n_features=self.settings.num_bins,
            alternate_sign=False,
            norm=None,
        )
        return hasher.transform(f"{_START} {self._cut(row['text'])}" for row in rows)

    def fit(self, choice: Mapping[str, Any], data: TrainingData) -> Scores:
        text = import_optional("sklearn.feature_extraction.text", "sequences")
        linear_model = import_optional("sklearn.linear_model", "sequences")
        weights = text.TfidfTransformer(sublinear_tf=True).fit(data.background)
        used = np.flatnonzero(data.features.getnnz(axis=0))
        model = linear_model.LogisticRegression(C=choice["strength"], max_iter=200, random_state=self.recipe.seed)
        model.fit(weights.transform(data.features)[:, used], data.targets)
        return lambda features: class_scores(model, weights.transform(features)[:, used], data.num_labels)

    def _cut(self, text: str) -> str:
        length = self.recipe.processor.get("max_length")
        if self.recipe.processor["tokenizer"] == "bytes":
            return text.encode()[:length].decode(errors="ignore")
        return " ".join(text.split()[:length])


@dataclass(frozen=True)
class ValueTreesConfig:
    """Settings of [`ValueTrees`].

    Args:
        num_trees: number of trees.
    """

    num_trees: int = 100

    def __post_init__(self) -> None:
        require_integer("`model.num_trees`", self.num_trees, 1)


class ValueTrees(Estimator):
    """Extremely randomised trees (Machine Learning 63, 3-42) on values, of sequences of one length, as of images."""

    config_class = ValueTreesConfig
    target: ClassVar[str] = "label"

    def choices(self) -> Sequence[dict[str, Any]]:
        return [{"min_samples_leaf": 1}]

    def features(self, rows: Any) -> NDArray[np.float32]:
        """Values `(n, length * features)` float32."""
        found = [np.asarray(row["values"], dtype=np.float32).ravel() for row in rows]
        sizes = {len(each) for each in found}
        if len(sizes) > 1:
            raise ValueError(
                f"The baseline {self.recipe.baseline} needs sequences of one length, and they have {min(sizes)} to "
                f"{max(sizes)} values: choose another baseline."
            )
        return np.stack(found)

    def fit(self, choice: Mapping[str, Any], data: TrainingData) -> Scores:
        ensemble = import_optional("sklearn.ensemble", "sequences")
        model = ensemble.ExtraTreesClassifier(
            self.settings.num_trees, n_jobs=1, random_state=self.recipe.seed, **choice
        ).fit(data.features, data.targets)
        return lambda features: class_scores(model, features, data.num_labels)
