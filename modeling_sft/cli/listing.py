"""`sft list`: presets, tasks and recipes."""

import argparse
import re
from pathlib import Path
from typing import Any

from .arguments import add_json
from .printing import aligned, print_result

SUMMARY = "list presets, tasks and recipes"
DESCRIPTION = (
    "List the presets with the parameters of their backbones, the tasks of recipes, and the recipes, which are found "
    "in a checkout only."
)
EPILOG = """examples:
  sft list
  sft list --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the lists."""
    print_result(describe_package(), format_package, arguments.json)
    return 0


def describe_package() -> dict[str, dict[str, Any]]:
    """Presets with the parameters of their backbones, tasks of recipes, and recipes with their tasks, by name.

    Recipes are found in a checkout only.
    """
    import modeling_sft

    from ..presets import PRESETS
    from ..training import TASKS, Recipe, get_task
    from ..training.recipe_files import recipe_paths
    from .models import num_parameters

    presets = {}
    for name, entry in PRESETS.items():
        config = entry.factory()
        count = num_parameters(getattr(modeling_sft, config.auto_map["AutoModel"].split(".")[-1]), config)
        presets[name] = {"num_parameters": count, "description": entry.description}
    recipes = {}
    for name, path in recipe_paths(Path(modeling_sft.__file__).resolve().parents[1] / "configuration").items():
        comment = re.match(r"#\s*(.*)", path.read_text(encoding="utf-8"))
        recipes[name] = {"task": Recipe.from_yaml(path).task, "description": comment[1] if comment else ""}
    tasks = {name: (type(get_task(name)).__doc__ or "").strip().split("\n")[0] for name in sorted(TASKS)}
    return {"presets": presets, "tasks": tasks, "recipes": recipes}


def format_package(result: dict[str, dict[str, Any]]) -> str:
    """The text of `describe_package`."""
    counts = {name: f"{entry['num_parameters']:,}" for name, entry in result["presets"].items()}
    width = max(map(len, counts.values()))
    parts = {
        "presets, with parameters": {
            name: f"{counts[name].rjust(width)}  {entry['description']}" for name, entry in result["presets"].items()
        },
        "tasks": result["tasks"],
        "recipes": {name: f"[{entry['task']}] {entry['description']}" for name, entry in result["recipes"].items()},
    }
    return "\n\n".join(f"{title}:\n{aligned(entries)}" for title, entries in parts.items() if entries)
