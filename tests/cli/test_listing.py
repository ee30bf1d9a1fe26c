"""`sft list`: presets, tasks and recipes."""

import json
import re

from modeling_sft.cli.listing import format_package
from modeling_sft.presets import PRESETS
from modeling_sft.training.recipe_files import recipe_paths
from paths import ROOT


def test_list(run):
    listed = json.loads(run("list", "--json"))
    assert set(listed) == {"presets", "tasks", "recipes"} and set(listed["presets"]) == set(PRESETS)
    assert set(listed["recipes"]) == set(recipe_paths(ROOT / "configuration"))
    assert listed["recipes"]["samsa-digits"]["task"] == "point-cloud-classification"
    # Its task stands in its base.
    assert listed["recipes"]["nci1-gine"]["task"] == "graph-classification"
    assert listed["recipes"]["nci1-gine"]["description"] == "A peer of nci1: GINE, as wide and deep."
    assert {entry["task"] for entry in listed["recipes"].values()} <= set(listed["tasks"])
    assert all(listed["tasks"].values())
    text = format_package(listed)
    for name in ("node-classification", "samsa-digits"):
        assert re.search(rf"^  {name}  ", text, re.MULTILINE)
    # The table of the documentation is this text.
    assert text.split("\n\n")[0] in (ROOT / "docs" / "pipelines.md").read_text(encoding="utf-8")
