"""The feature extractor of sequences of vectors: arrays in, normalized and padded model inputs out."""

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import SequenceFeatureExtractor
from transformers.feature_extraction_utils import BatchFeature

from ..hub.arguments import refuses_unknown_arguments
from ..hub.processing import SavedWithCode, prepared
from ..hub.values import require_integer


class SFTSequenceFeatureExtractor(SavedWithCode, SequenceFeatureExtractor):
    """Turns sequences of L vectors with F features, such as the pixels of an image row by row, into model inputs.

    Each sequence is cut after `max_length` vectors, normalized as (x - mean) / std and padded at the right.

    Args:
        feature_size: F, the number of features of each vector.
        mean: one number per feature to subtract; None subtracts nothing.
        std: one positive number per feature to divide by; None divides by nothing.
        max_length: how many vectors of a sequence to keep, from its beginning; None keeps all.
        padding_value: what the padding is filled with, after normalization.

    Raises:
        TypeError: for an unknown argument.
        ValueError: for a value outside its range.
    """

    model_input_names = ["input_features", "attention_mask"]
    inherited_arguments = ("padding_side", "return_attention_mask")

    def __init__(
        self,
        feature_size: int = 1,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        max_length: int | None = None,
        padding_value: float = 0.0,
        **kwargs: Any,
    ) -> None:
        require_integer("feature_size", feature_size, 1)
        require_integer("max_length", max_length, 1, or_none="to keep all")
        # The base class was made for sound and insists on a sampling rate, which means nothing here.
        sampling_rate = kwargs.pop("sampling_rate", 1)
        super().__init__(feature_size, sampling_rate, padding_value, **kwargs)
        self.mean = _per_feature("mean", mean, feature_size)
        self.std = _per_feature("std", std, feature_size)
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"std must be positive; got {self.std}. Leave out features that never change.")
        self.max_length = max_length

    @refuses_unknown_arguments()
    def __call__(self, values: Any, return_tensors: str | None = None) -> BatchFeature:
        """Prepares one sequence or several.

        Args:
            values: one sequence, an array or tensor (L, F), or (L,) for F = 1; or several, a list of these or an array
                (B, L, F). A list of numbers is one sequence (L,).
            return_tensors: "pt" for PyTorch, "np" or None for NumPy.

        Returns:
            BatchFeature with `input_features` (B, N, F) float32 and `attention_mask` (B, N) int64, 1 = vector and
            0 = padding; N is the length of the longest sequence.

        Raises:
            ValueError: for an empty sequence, a shape or a number of features that do not fit, or values that are no
                finite real numbers.
        """
        if isinstance(values, (list, tuple)):
            if len(values) == 0:
                raise ValueError("values is empty; pass at least one sequence.")
            sequences = [values] if isinstance(values[0], Real) else list(values)
        else:
            sequences = list(values) if np.ndim(values) == 3 else [values]
        items = prepared("Sequence", sequences, lambda _, sequence: self.preprocess(sequence))
        masks = [np.ones(len(item), dtype=np.int64) for item in items]
        batch = BatchFeature({"input_features": items, "attention_mask": masks})
        return self.pad(batch, return_tensors=return_tensors or "np")

    def preprocess(self, values: Any) -> NDArray[np.float32]:
        """Prepares one sequence, without padding.

        Args:
            values: (L, F), or (L,) for F = 1.

        Returns:
            (min(L, max_length), F) float32.

        Raises:
            ValueError: as `__call__`.
        """
        try:
            array = np.asarray(values)
        except ValueError as error:
            raise ValueError("values must be one array (L, F) of real numbers; its rows differ in length.") from error
        if array.dtype.kind not in "biuf":
            raise ValueError(f"values must be real numbers; got {array.dtype}.")
        if array.ndim == 1:
            array = array[:, None]
        if array.ndim != 2 or array.shape[1] != self.feature_size:
            raise ValueError(
                f"values has shape {np.shape(values)}; expected (L, {self.feature_size})"
                f"{' or (L,)' if self.feature_size == 1 else ''}, feature_size being {self.feature_size}. Pass "
                "several sequences as a list."
            )
        if len(array) == 0:
            raise ValueError("values is a sequence of length 0; leave it out.")
        array = array[: self.max_length].astype(np.float64)
        if self.mean is not None:
            array -= self.mean
        if self.std is not None:
            array /= self.std
        with np.errstate(over="ignore"):
            features = array.astype(np.float32)
        if not np.isfinite(features).all():
            raise ValueError("values must be finite in float32; it has entries that are NaN, infinite or too large.")
        return features

    def _pad(self, processed_features: dict[str, NDArray[Any]], *args: Any, **kwargs: Any) -> dict[str, NDArray[Any]]:
        # The base class takes sequences of a single feature for (L,), and would pad the columns of (L, 1) as well.
        name = self.model_input_names[0]
        if self.feature_size > 1:
            return super()._pad(processed_features, *args, **kwargs)
        flat = {**processed_features, name: processed_features[name][:, 0]}
        padded = super()._pad(flat, *args, **kwargs)
        return {**padded, name: padded[name][:, None]}


def _per_feature(name: str, numbers: Sequence[float] | None, feature_size: int) -> list[float] | None:
    if numbers is None:
        return None
    array = np.asarray(numbers)
    if array.shape != (feature_size,) or array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise ValueError(f"{name} must be {feature_size} finite numbers, one per feature, or None; got {numbers!r}.")
    return [float(number) for number in array]
