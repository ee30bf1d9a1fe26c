"""The result for the leaderboard of a benchmark on the Hub: a file `.eval_results/NAME.yaml`."""

import re

from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
from huggingface_hub.utils import yaml_dump

from ..hub.optional import import_optional
from ..training.evaluation import EVALUATION_NAME
from ..training.writing import replace_text
from .files import EVAL_RESULTS_FOLDER, check_inside
from .reports import has_source, numbers_of, results_of
from .validation import CheckedFolder

_BENCHMARK = re.compile(r"([\w.-]+/([\w.-]+)):(\S+)")


def write_benchmark_result(checked: CheckedFolder, benchmark: str) -> None:
    """Write the main metric of `evaluation.json` (test split, data not rotated) as the result on a benchmark.

    Args:
        checked: the folder.
        benchmark: `"org/name:task"`: the benchmark's data set on the Hub, and the id that its `eval.yaml` gives to the
            task.

    Raises:
        ValueError: if `benchmark` is written otherwise, or the evaluation has no such result, or `.eval_results` leads
            out of the folder.
    """
    match = _BENCHMARK.fullmatch(benchmark)
    if match is None:
        raise ValueError(f'`benchmark` must be "org/name:task", got {benchmark!r}.')
    wanted = (EVALUATION_NAME, "test", "none", checked.task.main_metric)
    for result in results_of(checked.reports):
        if (result.source, result.split, result.rotation, result.metric) == wanted:
            break
    else:
        raise ValueError(
            f"{EVALUATION_NAME} has no {checked.task.main_metric} of the test split as it is, which is the result for "
            "`benchmark`: run scripts/evaluate.py again, with --save alone."
        )
    entry = EvalResultEntry(
        dataset_id=match[1],
        task_id=match[3],
        value=result.value,
        date=checked.reports[EVALUATION_NAME]["date"],
        notes=", ".join([result.metric, *(f"{name}={value}" for name, value in result.arguments.items())]),
    )
    path = checked.path / EVAL_RESULTS_FOLDER / f"{match[2]}.yaml"
    check_inside(checked.path, path.parent)
    path.parent.mkdir(exist_ok=True)
    replace_text(path, yaml_dump(eval_result_entries_to_yaml([entry]), sort_keys=False))


def check_benchmark_results(checked: CheckedFolder) -> None:
    """Check that every value in `.eval_results` has a source in the evaluation files.

    Raises:
        ValueError: if one has none, or a file cannot be read.
    """
    yaml = import_optional("yaml", "train")
    numbers = numbers_of(checked.reports)
    for path in sorted((checked.path / EVAL_RESULTS_FOLDER).glob("*.yaml")):
        name = f"{EVAL_RESULTS_FOLDER}/{path.name}"
        try:
            values = [str(entry["value"]) for entry in yaml.safe_load(path.read_text(encoding="utf-8"))]
        except (yaml.YAMLError, RecursionError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{name} cannot be read ({error}): correct or delete it.") from error
        for value in values:
            if not has_source(value, numbers):
                raise ValueError(
                    f"{name} says {value}, which has no source in {', '.join(checked.reports)}: delete it."
                )
