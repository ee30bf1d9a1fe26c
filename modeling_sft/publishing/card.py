"""The model card: rendered from what a folder holds, and checked against its evaluation files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..hub.optional import import_optional
from ..training.run import CURVES_NAME
from .reports import Result, has_source, numbers_of, results_of, rows_under, unsourced_number
from .sections import CARD_SECTIONS
from .validation import CheckedFolder

TEMPLATE = Path(__file__).with_name("model_card.md")
UNKNOWN_DATA_LICENSE = "not recorded here; ask the publisher of the data set"
_PURPOSES = {
    "point-cloud-classification": "It assigns one of {labels} classes to a point cloud.",
    "point-cloud-segmentation": "It assigns one of {labels} classes to each point of a point cloud.",
    "graph-classification": "It assigns one of {labels} classes to a graph.",
    "graph-multi-label-classification": "It says which of {labels} labels a graph has, each by itself.",
    "graph-regression": "It predicts {labels} number(s) for a graph.",
    "node-classification": "It assigns one of {labels} classes to each node of a graph.",
    "link-prediction": "It predicts which nodes of a graph are linked.",
    "sequence-classification": "It assigns one of {labels} classes to a sequence.",
    "sequence-pair-classification": "It assigns one of {labels} classes to a pair of sequences.",
    "sequence-regression": "It predicts {labels} number(s) for a sequence.",
    "pre-training": "It predicts which words a text has, and is a start for training classifiers of texts.",
    "masked-language-modeling": "It fills in masked tokens, and is a start for training on other tasks on sequences.",
}
_TAGS = {"point_cloud": "point-cloud", "graph": "graph-ml", "sequence": "sequence"}
_CALLS = {
    "point_cloud": 'processor = AutoProcessor.from_pretrained("{repo}")  # takes arrays (n, 3) and files of clouds',
    "graph": 'processor = AutoProcessor.from_pretrained("{repo}")  # takes PyTorch Geometric, networkx, SMILES',
    "sequence": 'processor = AutoTokenizer.from_pretrained("{repo}")',
    "values": 'processor = AutoFeatureExtractor.from_pretrained("{repo}")  # takes arrays (n, features)',
}
_FOLDERS = re.compile(r"(?<![^=\s])/(?:[^/\s]*/)*(?=[^/\s])")


def render_card(
    checked: CheckedFolder, repo_id: str, license_name: str = "apache-2.0", data_license: str | None = None
) -> ModelCard:
    """Write the model card of a folder. Every number comes from its log and evaluation files.

    Args:
        checked: the folder.
        repo_id: repository that it will be published as.
        license_name: licence of weights and code, as the Hub names it.
        data_license: licence of the training data; by default what its [`ReaderEntry`] says.

    Raises:
        ValueError: if `auto_map` of the configuration does not name the model's class.
    """
    config, recipe, log = checked.config, checked.recipe, checked.log
    results = results_of(checked.reports)
    model_name = repo_id.rpartition("/")[2]
    dataset = recipe.dataset["name"]
    reader = checked.task.readers.get(dataset)
    reads_tokens = config.modality == "sequence" and config.num_input_features == 0
    data = ModelCardData(
        library_name="transformers",
        license=license_name,
        tags=["sampling-foundational-transformer", config.model_type, _TAGS[config.modality], "arxiv:2408.05822"],
        pipeline_tag="text-classification" if reads_tokens and recipe.task == "sequence-classification" else None,
        model_name=model_name,
        eval_results=[_index_entry(result, recipe.task) for result in results],
    )
    parts = [CARD_SECTIONS[name].render(content, checked.path) for name, content in checked.sections.items()]
    purpose = _PURPOSES.get(recipe.task, f"Its task is `{recipe.task}`.")
    return ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        repo_id=repo_id,
        model_name=model_name,
        model_class=checked.model_class.__name__,
        num_sampled_tokens=config.num_sampled_tokens,
        num_parameters=f"{checked.num_parameters:,}",
        purpose=purpose.format(labels=config.num_labels),
        dataset=dataset,
        dataset_options=[
            (name, _FOLDERS.sub("", str(value)))
            for name, value in sorted(recipe.dataset.items())
            if name not in ("name", "validation_fraction")
        ],
        data_license=data_license or (reader and reader.license) or UNKNOWN_DATA_LICENSE,
        validation=(
            f"a fraction of {recipe.validation_fraction:g} of the training data, unless the data set has a split"
            if recipe.validation_fraction > 0
            else "none was held out"
        ),
        start=f"weights of `{_FOLDERS.sub('', recipe.pretrained)}`" if recipe.pretrained else "random weights",
        command=without_folders(log["command"]),
        seed=recipe.seed,
        hardware=log["hardware"],
        duration=_duration(log),
        date=log["date"],
        versions=", ".join(f"{name} {version}" for name, version in log["versions"].items() if version),
        results=results,
        opening="".join(
            f" {text}"
            for text in (CARD_SECTIONS[name].opening(content) for name, content in checked.sections.items())
            if text
        ),
        sections="".join(f"{part.strip()}\n\n" for part in parts),
        num_runs=max((CARD_SECTIONS[name].num_runs(each) for name, each in checked.sections.items()), default=1),
        curves=CURVES_NAME if (checked.path / CURVES_NAME).is_file() else None,
        snippet=_snippet(checked, repo_id),
        license=license_name,
    )


def _duration(log: Mapping[str, Any]) -> str:
    # The clock starts anew when a run is resumed, processor time is carried on.
    parts = (("training_cpu_seconds", "of processor time"), ("training_seconds", "by the clock since the last start"))
    found = [f"{log[name]:.0f} s {what}" for name, what in parts if log.get(name) is not None]
    return ", ".join(found) or "not recorded"


def load_card(path: Path) -> ModelCard:
    """Read a model card.

    Raises:
        ValueError: if its front matter cannot be read: no YAML, with tags, or nested too deep.
    """
    yaml = import_optional("yaml", "train")
    try:
        return ModelCard.load(path)
    except (ValueError, yaml.YAMLError, RecursionError, TypeError, AttributeError) as error:
        raise ValueError(
            f"The metadata of {path.name} cannot be read ({error}): correct it, or delete {path.name} to have it "
            "written anew."
        ) from error


def without_folders(command: str) -> str:
    """Shorten the absolute paths in a command line to their last part: others have other folders."""
    return shlex.join(_FOLDERS.sub("", word) for word in shlex.split(command))


def check_card(
    card: ModelCard, reports: Mapping[str, Mapping[str, Any]], sections: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """Check that every result in a card has a source in evaluation files.

    Looked at are the model index of the metadata, each entry of which must name a data set, split, metric and
    arguments (rotation, K) that a report has with this value, and the cells of numbers of all tables under a heading
    with "Results". Further parts of a card are checked by their [`CardSection`].

    Args:
        card: the card.
        reports: what [`read_reports`] read.
        sections: what [`read_sections`] read: further sources of numbers in tables.

    Raises:
        ValueError: if a number has no source, or the card has no results at all.
    """
    remedy = "correct it, or delete README.md to have it written anew."
    entries: Sequence[EvalResult] = card.data.get("eval_results") or []
    if not entries:
        raise ValueError(f"The card has no results in its metadata (model-index): {remedy}")
    results = results_of(reports)
    for entry in entries:
        arguments = entry.dataset_args or {}
        sources = [
            result
            for result in results
            if (result.dataset, result.split) == (entry.dataset_type, entry.dataset_split)
            and result.metric == entry.metric_type
            and all(arguments.get(name, value) == value for name, value in result.arguments.items())
        ]
        if not any(has_source(str(entry.metric_value), {each.value, 100 * each.value}) for each in sources):
            where = ", ".join([entry.dataset_type, f"{entry.dataset_split} split", _written(arguments)])
            raise ValueError(
                f"The card's {entry.metric_type} of {entry.metric_value} ({where}) has no source in "
                f"{', '.join(reports)}: {remedy}"
            )
    sections = sections or {}
    with_results = {name: content for name, content in sections.items() if CARD_SECTIONS[name].has_results}
    numbers = numbers_of({**reports, **with_results})
    number = unsourced_number(rows_under(card.text, "result"), numbers)
    if number is not None:
        raise ValueError(
            f"The card's table of results says {number}, which has no source in {', '.join(reports)}: {remedy}"
        )
    for name, section in CARD_SECTIONS.items():
        section.check(card.text, sections.get(name))


def _index_entry(result: Result, task: str) -> EvalResult:
    return EvalResult(
        task_type=task,
        dataset_type=result.dataset,
        dataset_name=result.dataset,
        dataset_split=result.split,
        # huggingface_hub joins results that differ in their arguments alone, so the configuration repeats them.
        dataset_config=_written(result.arguments),
        dataset_args=result.arguments,
        metric_type=result.metric,
        metric_value=result.value,
        metric_name=result.metric.replace("_", " "),
    )


def _written(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in arguments.items())


def _snippet(checked: CheckedFolder, repo_id: str) -> str:
    import modeling_sft

    config = checked.config
    auto_map = config.auto_map if isinstance(config.auto_map, Mapping) else {}
    model_name = checked.model_class.__name__
    auto = next((name for name, where in auto_map.items() if str(where).endswith(f".{model_name}")), None)
    if auto is None:
        raise ValueError(f"`auto_map` in config.json has no entry for {model_name}: save the model again.")
    kind = "values" if config.modality == "sequence" and config.num_input_features > 0 else config.modality
    call = _CALLS[kind].format(repo=repo_id)
    loader = call.split()[2].partition(".")[0]
    if hasattr(modeling_sft, auto):
        imports = [f"from modeling_sft import {auto}", f"from transformers import {loader}"]
    else:
        names = ", ".join(sorted((auto, loader)))
        imports = ["import modeling_sft  # registers the model with Transformers", f"from transformers import {names}"]
    return "\n".join([*imports, "", f'model = {auto}.from_pretrained("{repo_id}")', call])
