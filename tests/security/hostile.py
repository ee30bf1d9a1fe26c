"""Folders and objects that try to run code, which would leave a mark."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

HOSTILE = "hostile.SFTForPointCloudClassification"


class Trap:
    """Makes a folder where it is unpickled without care."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def change_json(path: Path, **changes: Any) -> None:
    """Replace entries of a JSON file, which is made if absent."""
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(content | changes))


def add_hostile_code(folder: Path, mark: Path, **changes: Any) -> None:
    """Let everything in a folder that can name code name a file that leaves a mark; `changes` go to config.json."""
    (folder / "hostile.py").write_text(
        f"import os\nos.makedirs({str(mark)!r}, exist_ok=True)\nclass SFTForPointCloudClassification: pass\n"
    )
    names = (
        "AutoConfig",
        "AutoModel",
        "AutoProcessor",
        "AutoFeatureExtractor",
        "AutoModelForPointCloudClassification",
    )
    auto_map = dict.fromkeys((*names, "AutoModelForSequenceClassification"), HOSTILE)
    tasks = dict.fromkeys(
        ("point-cloud-classification", "hostile-task"),
        {"impl": HOSTILE, "pt": ["AutoModelForSequenceClassification"], "type": "multimodal"},
    )
    change_json(folder / "config.json", auto_map=auto_map, custom_pipelines=tasks, **changes)
    change_json(folder / "preprocessor_config.json", auto_map=auto_map)
    change_json(
        folder / "tokenizer_config.json",
        auto_map={"AutoTokenizer": [HOSTILE, HOSTILE]},
        tokenizer_class="HostileTokenizer",
    )
    # A module that the package looks for lazily must not be found here.
    (folder / "trimesh.py").write_text((folder / "hostile.py").read_text())
