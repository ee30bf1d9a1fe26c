"""`sft list`: presets, tasks and recipes."""

import json
import re

from modeling_sft.cli.listing import format_package
from modeling_sft.presets import PRESETS
from paths import ROOT


def test_list(run):
    listed = json.loads(run("list", "--json"))
    assert set(listed) == {"presets", "tasks", "recipes"} and set(listed["presets"]) == set(PRESETS)
    recipes = {path.parent.name for path in (ROOT / "configuration").glob("*/recipe.yaml")}
    assert set(listed["recipes"]) == recipes
    assert listed["recipes"]["samsa-digits"]["task"] == "point-cloud-classification"
    assert {entry["task"] for entry in listed["recipes"].values()} <= set(listed["tasks"])
    assert all(listed["tasks"].values())
    text = format_package(listed)
    for name in ("node-classification", "samsa-digits"):
        assert re.search(rf"^  {name}  ", text, re.MULTILINE)
    # The table of the documentation is this text.
    assert text.split("\n\n")[0] in (ROOT / "docs" / "pipelines.md").read_text(encoding="utf-8")
