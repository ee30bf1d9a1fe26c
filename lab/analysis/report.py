"""Analysis of a saved model on a split: several sections, one JSON file and two figures."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from transformers import EvalPrediction

from modeling_sft.training.environment import describe_environment
from modeling_sft.training.evaluation import Evaluator
from modeling_sft.training.writing import replace_text

from .calibration import measure_calibration
from .classification import Answers, answers_of, kind_of
from .corruptions import Setting, corruptions_of
from .failures import find_failures
from .figures import plot_analysis, plot_failures
from .tables import ANALYSIS_FIGURE, ANALYSIS_NAME, FAILURES_FIGURE
from .throughput import measure_throughput

SECTIONS = ("sampled_tokens", "robustness", "calibration", "throughput", "failures")
SMALLEST_K = 16
_INPUTS = ("input_ids", "pair_input_ids", "input_features", "points", "node_features")


def analyze(
    folder: str | Path,
    data_dir: str | Path | None = None,
    split: str = "test",
    max_examples: int | None = None,
    seed: int = 0,
    batch_size: int = 32,
    only: Sequence[str] | None = None,
    output_dir: str | Path | None = None,
    progress: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Analyze a saved model, and write `analysis.json`, `analysis.png` and `failures.png`.

    Args:
        folder: folder with a model, its processor and `recipe.yaml`.
        data_dir: where the data sets lie.
        split: `"test"` or `"validation"` (the split that the recipe held out).
        max_examples: analyze that many rows, drawn by the seed, instead of all.
        seed: seeds corruptions and the choice of rows.
        batch_size: items per batch.
        only: sections to make, of `SECTIONS`; by default all that the task has.
        output_dir: where to write; the model's folder by default. An earlier analysis there is replaced.
        progress: called with one line before each step.

    Returns:
        `dict`: One key per section, as docs/publishing.md describes them; further keys hold model, task, data set,
        split, number of examples, seed, settings, date, command, versions and hardware. Numbers that are not defined
        are None.

    Raises:
        ValueError: if the folder, the split, the data or an argument does not fit.
    """
    if seed < 0:
        raise ValueError(f"`seed` must be at least 0, got {seed}.")
    if max_examples is not None and max_examples < 1:
        raise ValueError(f"`max_examples` must be at least 1, got {max_examples}: leave it out to analyze all.")
    analysis = Analysis(Evaluator(folder, None, split, batch_size), data_dir, max_examples, seed, progress)
    sections = _chosen_sections(only, analysis)
    evaluator = analysis.evaluator
    report: dict[str, Any] = {
        "model": Path(folder).resolve().name,
        "task": evaluator.recipe.task,
        "dataset": evaluator.recipe.dataset["name"],
        "split": split,
        "num_examples": len(analysis.rows),
        "num_parameters": sum(parameter.numel() for parameter in evaluator.model.parameters()),
        "num_sampled_tokens": analysis.trained_k,
        "seed": seed,
        "batch_size": batch_size,
        "main_metric": evaluator.task.main_metric,
    }
    for section in sections:
        report[section] = getattr(analysis, section)()
    report |= describe_environment()

    target = Path(folder if output_dir is None else output_dir)
    target.mkdir(parents=True, exist_ok=True)
    progress("drawing the figures")
    # Delete the figures of an earlier analysis: they would not match the new numbers.
    for name in (ANALYSIS_FIGURE, FAILURES_FIGURE):
        (target / name).unlink(missing_ok=True)
    plot_analysis(report, evaluator.task, target / ANALYSIS_FIGURE)
    if "failures" in report:
        examples = report["failures"].get("examples", [])
        rows = [analysis.row_at(example["index"]) for example in examples]
        plot_failures(report["failures"], rows, target / FAILURES_FIGURE)
    replace_text(target / ANALYSIS_NAME, json.dumps(report, indent=2, allow_nan=False) + "\n")
    return report


class Analysis:
    """The sections of an analysis, which share the rows of a split and one prediction of them.

    Args:
        evaluator: the model.
        data_dir: where the data sets lie.
        max_examples: rows to draw; all by default.
        seed: seeds everything that is drawn.
        progress: called with one line before each step.

    Raises:
        ValueError: if the data cannot be read or does not fit, or if several processes run.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        data_dir: str | Path | None,
        max_examples: int | None,
        seed: int,
        progress: Callable[[str], None],
    ) -> None:
        if evaluator.arguments.world_size > 1:
            raise ValueError(
                "An analysis measures time, and runs in one process: start it without `accelerate launch`."
            )
        self.evaluator = evaluator
        self.seed = seed
        self.progress = progress
        rows = evaluator.load_rows(data_dir)
        self.indices = np.arange(len(rows))
        if max_examples is not None and max_examples < len(rows):
            self.indices = np.sort(np.random.default_rng(seed).choice(len(rows), max_examples, replace=False))
            rows = rows.select(self.indices)
        self.rows = rows
        self.kind = kind_of(evaluator.task)
        self.trained_k = (
            None if evaluator.recipe.baseline else getattr(evaluator.model.config, "num_sampled_tokens", None)
        )

    @cached_property
    def corruptions(self) -> dict[str, list[Setting]]:
        """The corruptions that fit the task and the data."""
        evaluator = self.evaluator
        return corruptions_of(evaluator.task, evaluator.recipe.dataset["name"], self.rows, evaluator.processor)

    @cached_property
    def data(self) -> Any:
        """The rows as they are, prepared."""
        self.progress("preparing the data")
        return self.evaluator.prepare(self.rows)

    @cached_property
    def prediction(self) -> EvalPrediction:
        """The prediction of the rows as they are, with the trained K."""
        data = self.data
        self.progress("predicting the data as it is")
        return self.evaluator.predict(data)

    @cached_property
    def answers(self) -> Answers:
        """The prediction as probabilities."""
        assert self.kind is not None
        return answers_of(self.prediction, self.kind)

    @property
    def available(self) -> list[str]:
        """Names of the sections that the task and the data allow."""
        has = {
            "sampled_tokens": self.trained_k is not None,
            "robustness": bool(self.corruptions),
            "calibration": self.kind is not None,
            "throughput": True,
            "failures": self.kind is not None,
        }
        return [section for section in SECTIONS if has[section]]

    def row_at(self, index: int) -> Any:
        """The row at a place in the split."""
        return self.rows[int(np.searchsorted(self.indices, index))]

    def sampled_tokens(self) -> list[dict[str, Any]]:
        """Metrics for K = 16, 32, 64, ..., the trained K, and all tokens of the longest input; K is restored."""
        assert self.trained_k is not None
        extra = getattr(self.evaluator.model.config, "num_extra_tokens", 0)
        whole = extra + max(_length_of(self.data[index]) for index in range(len(self.data)))
        results = []
        try:
            for k in sorted({*_powers_of_two(SMALLEST_K, whole), self.trained_k, whole}):
                if k == self.trained_k:
                    metrics = self._metrics(self.prediction)
                else:
                    self.progress(f"sampled_tokens: K = {k}")
                    self.evaluator.model.set_num_sampled_tokens(k)
                    metrics = self._metrics(self.evaluator.predict(self.data))
                    self.evaluator.model.set_num_sampled_tokens(self.trained_k)
                results.append(
                    {"num_sampled_tokens": k, "is_trained": k == self.trained_k, "is_all": k >= whole, **metrics}
                )
        finally:
            self.evaluator.model.set_num_sampled_tokens(self.trained_k)
        return results

    def robustness(self) -> dict[str, list[dict[str, Any]]]:
        """Metrics under each severity of each corruption, starting with the rows as they are."""
        results: dict[str, list[dict[str, Any]]] = {}
        for name, settings in self.corruptions.items():
            results[name] = []
            for setting in settings:
                if setting.severity == 0:
                    metrics = self._metrics(self.prediction)
                else:
                    self.progress(f"robustness: {name.replace('_', ' ')}, {setting.name}")
                    data = self.evaluator.prepare(setting.corrupt(self.rows, self.seed))
                    metrics = self._metrics(self.evaluator.predict(data))
                results[name].append({"severity": setting.severity, "setting": setting.name, **metrics})
        return results

    def calibration(self) -> dict[str, Any]:
        """See [`measure_calibration`]."""
        return measure_calibration(self.answers)

    def throughput(self) -> dict[str, Any]:
        """See [`measure_throughput`]."""
        evaluator, data = self.evaluator, self.data
        self.progress("throughput")
        collate = evaluator.task.build_collator(evaluator.processor, evaluator.model.config)
        model = evaluator.model.to(evaluator.arguments.device).eval()
        return measure_throughput(model, data, collate, evaluator.arguments.per_device_eval_batch_size, self.seed)

    def failures(self) -> dict[str, Any]:
        """See [`find_failures`]."""
        names = [name for _, name in sorted(self.evaluator.model.config.id2label.items())]
        return find_failures(self.answers, names, self.indices.tolist())

    def _metrics(self, prediction: EvalPrediction) -> dict[str, float | None]:
        metrics = self.evaluator.compute_metrics(prediction)
        return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def _chosen_sections(only: Sequence[str] | None, analysis: Analysis) -> list[str]:
    available = analysis.available
    if only is None:
        return available
    unknown = [section for section in only if section not in available]
    if unknown or not only:
        raise ValueError(
            f"`only` must be among {', '.join(available)} for the task {analysis.evaluator.recipe.task} and this "
            f"data, got {', '.join(unknown) or 'none'}."
        )
    return [section for section in SECTIONS if section in only]


def _powers_of_two(first: int, limit: int) -> Iterator[int]:
    while first < limit:
        yield first
        first *= 2


def _length_of(item: dict[str, Any]) -> int:
    return max(len(item[name]) for name in _INPUTS if name in item)
