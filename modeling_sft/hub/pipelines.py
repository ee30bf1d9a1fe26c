"""What the pipelines of point clouds and graphs share: checks, batches, labels, and how they are saved."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForSequenceClassification, AutoModelForTokenClassification, Pipeline

from .arguments import constructor_arguments, refuse_unknown_arguments
from .remote_code import class_reference, write_code
from .values import require_integer

POOLINGS = ("mean", "max")


class _ListEntry:
    """One input of a list, with the place that errors name."""

    def __init__(self, position: int, value: Any) -> None:
        self.position = position
        self.value = value


class SFTPipeline(Pipeline):
    """Base of the pipelines: items prepared one by one, padded to batches by the model's own processor.

    Called with one input, a list of inputs, a data set or a generator; `batch_size` inputs go through the model at
    once. Padding changes no answer.

    Args:
        model: a model of the pipeline's task.
        feature_extractor: the model's processor.
        processor: the same, by its other name.
        task: name of the task; that of the class by default.
        kwargs: as everywhere in Transformers (`device`, `batch_size`, ...), and defaults for the arguments of a call.

    Raises:
        TypeError: an unknown argument, here or of a call.
        ValueError: a missing processor, one of other inputs, or a model of another task.
    """

    # Transformers' flags: load a feature extractor if the folder has one, and nothing else.
    _load_feature_extractor = None
    _load_processor: Any = False
    _load_tokenizer: Any = False
    _load_image_processor: Any = False
    _load_video_processor: Any = False

    task_name: ClassVar[str]
    """The task, in the registry of Transformers."""
    head_name: ClassVar[str]
    """How the names of the task's model classes end; "" for any model with a backbone."""
    input_name: ClassVar[str]
    """The first input of models and processors."""
    processor_name: ClassVar[str]
    portable_auto_class: ClassVar[Any]
    """The class of Transformers itself that loads the model where this package is not installed."""
    stages: ClassVar[Mapping[str, str]] = {}
    """The arguments of a call, and which of `preprocess`, `forward` and `postprocess` takes each."""

    def __init__(
        self, model: Any, feature_extractor: Any = None, processor: Any = None, task: str = "", **kwargs: Any
    ) -> None:
        feature_extractor = processor if feature_extractor is None else feature_extractor
        self._check_model(model)
        self._check_processor(model, feature_extractor)
        super().__init__(model, feature_extractor=feature_extractor, task=task or self.task_name, **kwargs)
        # A model that was just trained would go on sampling as in training.
        self.model.eval()

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """Answer for one input, or for each of a list, a data set or a generator.

        Args:
            inputs: see the class; a tuple, an array of several and a PyTorch Geometric `Batch` count as lists.
            kwargs: `batch_size`, `num_workers`, and the arguments that the class lists.

        Returns:
            The answer of `postprocess`; a list of them for a list, an iterator for a data set or a generator.

        Raises:
            ValueError: inputs that cannot be read, with their place in a list, or arguments that do not fit.
        """
        if hasattr(inputs, "to_data_list"):
            inputs = inputs.to_data_list()
        elif isinstance(inputs, tuple) or getattr(inputs, "ndim", 0) == 3:
            inputs = list(inputs)
        if isinstance(inputs, list):
            if not inputs:
                return []
            inputs = [_ListEntry(position, entry) for position, entry in enumerate(inputs)]
        return super().__call__(inputs, **kwargs)

    def preprocess(self, inputs: Any, **parameters: Any) -> dict[str, Any]:
        """Prepare one input: the inputs of the model, as arrays without padding, in `item`.

        Raises:
            ValueError: it cannot be read.
        """
        if not isinstance(inputs, _ListEntry):
            return {"item": self._prepare(inputs, **parameters)}
        try:
            return {"item": self._prepare(inputs.value, **parameters)}
        except ValueError as error:
            raise ValueError(f"Input {inputs.position} of the list: {error}") from error

    def _prepare(self, inputs: Any, **parameters: Any) -> dict[str, Any]:
        """The inputs of the model for one input, as arrays without padding."""
        raise NotImplementedError

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Save model, processor and code: the folder needs `trust_remote_code=True`, and not this package.

        Args:
            save_directory: the folder; made if it is missing.
            kwargs: of the model's `save_pretrained`, such as `max_shard_size`.

        Raises:
            ValueError: `push_to_hub` is set.
        """
        if kwargs.get("push_to_hub"):
            # The parts would be uploaded one by one, and the pipeline's code not at all.
            raise ValueError("`push_to_hub` is set: call the pipeline's method `push_to_hub(name)` instead.")
        folder, config, auto_class = Path(save_directory), self.model.config, self.portable_auto_class
        folder.mkdir(parents=True, exist_ok=True)
        if auto_class is not AutoModel:
            # Transformers finds remote code under the names of its own Auto classes only.
            auto_map = getattr(config, "auto_map", None) or {}
            config.auto_map = {**auto_map, auto_class.__name__: class_reference(type(self.model))}
        implementation = {"impl": class_reference(type(self)), "pt": [auto_class.__name__]}
        config.custom_pipelines = {self.task: implementation}
        write_code(type(self), folder)
        self.model.save_pretrained(folder, **kwargs)
        self.feature_extractor.save_pretrained(folder)

    def _check_model(self, model: Any) -> None:
        name, config = type(model).__name__, model.config
        fits = name.endswith(self.head_name) if self.head_name else hasattr(config, "hidden_size")
        if not fits or getattr(model, "main_input_name", None) != self.input_name:
            expected = f"SFT{self.head_name}" if self.head_name else f"SFT model of `{self.input_name}`"
            raise ValueError(f"`model` is a {name}: the task {self.task_name!r} needs a {expected}, or one like it.")
        saved = config.architectures or [name]
        if self.head_name and name not in saved:
            raise ValueError(
                f"`model` was saved as {', '.join(saved)}: it has no trained weights for {name}, which the task "
                f"{self.task_name!r} needs. Use the task of what was saved; if you have trained the head since, save "
                "the model first."
            )

    def _check_processor(self, model: Any, feature_extractor: Any) -> None:
        if feature_extractor is None:
            folder = getattr(model, "name_or_path", "") or "FOLDER"
            raise ValueError(
                f"`feature_extractor` is missing, and `{folder}` has no preprocessor_config.json that can be read. "
                f"Save the processor of the training beside the model, `{self.processor_name}(...).save_pretrained("
                f"{folder!r})`, or pass it as `feature_extractor`."
            )
        if self.input_name not in getattr(feature_extractor, "model_input_names", ()):
            raise ValueError(
                f"`feature_extractor` is a {type(feature_extractor).__name__}: the task {self.task_name!r} needs a "
                f"{self.processor_name}."
            )

    def _sanitize_parameters(self, **parameters: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        # Transformers forgets to take these of its own away, and reads the second one no more.
        for name in ("local_files_only", "framework"):
            parameters.pop(name, None)
        known = [*self.stages, "batch_size", "num_workers"]
        if not hasattr(self, "_postprocess_params"):
            # The constructor asks for the first time; it has taken its own arguments away.
            known += [*constructor_arguments(type(self)), "dtype"]
        unknown = [name for name in parameters if name not in self.stages]
        refuse_unknown_arguments(type(self).__name__, unknown, known)
        by_stage: dict[str, dict[str, Any]] = {"preprocess": {}, "forward": {}, "postprocess": {}}
        for name, value in parameters.items():
            by_stage[self.stages[name]][name] = value
        top_k = parameters.get("top_k")
        require_integer("top_k", top_k, 1, or_none="for all labels")
        pooling = parameters.get("pooling")
        if pooling is not None and pooling not in POOLINGS:
            raise ValueError(f"`pooling` is {pooling!r}: use one of {', '.join(POOLINGS)}, or None for all states.")
        return by_stage["preprocess"], by_stage["forward"], by_stage["postprocess"]

    def _batch(self, items: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Model inputs of prepared items, on the model's device."""
        return dict(self.feature_extractor.pad(items).to(self.device))

    def _forward(self, model_inputs: dict[str, Any], **parameters: Any) -> dict[str, Any]:
        # Not tensors, so that Transformers collects the items in a list and leaves the padding to the processor.
        items = model_inputs["item"] if isinstance(model_inputs["item"], list) else [model_inputs["item"]]
        groups: dict[tuple[str, ...], list[int]] = {}
        for row, item in enumerate(items):
            groups.setdefault(tuple(sorted(item)), []).append(row)
        outputs: dict[int, Tensor] = {}
        # Meshes have normals and plain clouds none, for example: such inputs cannot share a batch.
        for rows in groups.values():
            outputs.update(zip(rows, self._run(self._batch([items[row] for row in rows]), **parameters)))
        return {"output": [outputs[row] for row in range(len(items))], "item": items}

    def _run(self, batch: dict[str, Tensor]) -> Tensor:
        return self.model(**batch).logits

    def _first(self, model_outputs: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """Output and prepared item of the one input that is left after batches were taken apart."""
        item = model_outputs["item"]
        output = model_outputs["output"][0]
        return output.to(torch.promote_types(output.dtype, torch.float32)), item[0] if isinstance(item, list) else item


class ClassificationPipeline(SFTPipeline):
    """Base of the pipelines that label whole inputs.

    Args of a call:
        top_k: how many labels to return, the most likely first; 5 by default, None for all. Targets of a regression
            are all returned, in the configuration's order.
    """

    portable_auto_class = AutoModelForSequenceClassification
    stages = {"top_k": "postprocess"}

    def postprocess(self, model_outputs: dict[str, Any], top_k: int | None = 5) -> list[dict[str, Any]]:
        """The answer for one input.

        Returns:
            One `{"label": name, "score": number}` per label: probabilities of classes, which sum to 1; of each label
            by itself where there may be several; or, in regression, the predicted numbers.
        """
        config: Any = self.model.config
        scores = label_scores(self._first(model_outputs)[0], config).tolist()
        answer = [{"label": config.id2label[index], "score": score} for index, score in enumerate(scores)]
        if problem_type(config) == "regression":
            return answer
        return sorted(answer, key=lambda entry: -entry["score"])[:top_k]


class TokenClassificationPipeline(SFTPipeline):
    """Base of the pipelines that label every point or node of an input."""

    portable_auto_class = AutoModelForTokenClassification

    def postprocess(self, model_outputs: dict[str, Any]) -> dict[str, Any]:
        """The answer for one input of n points or nodes.

        Returns:
            `labels`, n names, and `scores` (n,), their probabilities; where there may be several labels, or numbers
            are predicted, `scores` (n, num_labels) alone, in the configuration's order of labels.
        """
        logits, item = self._first(model_outputs)
        config: Any = self.model.config
        scores = label_scores(self._restricted(logits[: len(item[self.input_name])], item), config)
        if problem_type(config) != "single_label_classification":
            return {"scores": scores.numpy()}
        best, index = scores.max(-1)
        return {"labels": [config.id2label[label] for label in index.tolist()], "scores": best.numpy()}

    def _restricted(self, logits: Tensor, item: dict[str, Any]) -> Tensor:
        """Logits without the labels that the item cannot have; here all."""
        return logits


class FeatureExtractionPipeline(SFTPipeline):
    """Base of the pipelines that embed inputs, for retrieval or other models on top.

    Args of a call:
        pooling: "mean" (the default) or "max" over the points or nodes; None returns all their states.
        normalize: scale each vector to length 1, so that products of them are cosines; off by default.
    """

    head_name = ""
    portable_auto_class = AutoModel
    stages = {"pooling": "forward", "normalize": "postprocess"}

    def _run(self, batch: dict[str, Tensor], pooling: str | None = "mean") -> Tensor:
        states, mask = self.model.base_model(**batch).last_hidden_state, batch["attention_mask"][..., None]
        if pooling == "mean":
            states = states.to(torch.promote_types(states.dtype, torch.float32))
            states = (states * mask).sum(1) / mask.sum(1)
        elif pooling == "max":
            states = states.masked_fill(mask == 0, -torch.inf).amax(1)
        return states

    def postprocess(self, model_outputs: dict[str, Any], normalize: bool = False) -> np.ndarray:
        """The embedding of one input of n points or nodes.

        Returns:
            `(hidden_size,)` float32, or `(n, hidden_size)` without pooling.
        """
        features, item = self._first(model_outputs)
        if features.dim() == 2:
            features = features[: len(item[self.input_name])]
        if normalize:
            features = torch.nn.functional.normalize(features, dim=-1)
        return features.numpy()


def problem_type(config: Any) -> str:
    """`config.problem_type`, or what the number of labels says."""
    if config.problem_type is not None:
        return str(config.problem_type)
    return "regression" if config.num_labels == 1 else "single_label_classification"


def label_scores(logits: Tensor, config: Any) -> Tensor:
    """Probabilities of labels, or the numbers of a regression, from logits `(..., num_labels)`."""
    kind = problem_type(config)
    if kind == "regression":
        return logits
    return logits.softmax(-1) if kind == "single_label_classification" else logits.sigmoid()
