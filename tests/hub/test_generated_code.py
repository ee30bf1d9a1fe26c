"""The code that travels with a checkpoint: one generated file, whole, and of one kind of input."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import modeling_sft
from modeling_sft import SFTForGraphClassification, SFTGraphProcessor
from modeling_sft.hub import remote_code
from tiny_models import build_graph

# The class, the generated file, what stands in it, and what belongs to other kinds of input.
FILES = {
    "SFTForMaskedLM": ("modeling_sft.py", "SFTSequenceRelation", ("SFTGraphRelation", "SFTPointCloudRelation")),
    "SFTForLinkPrediction": ("modeling_sft_graph.py", "SFTMessagePassing", ("SFTEmbeddings", "SFTPointCloudRelation")),
    "SFTForPointCloudSegmentation": (
        "modeling_sft_point_cloud.py",
        "SFTEdgeMixing",
        ("SFTGraphRelation", "SFTMaskedLMHead"),
    ),
    "SFTSequenceFeatureExtractor": ("feature_extraction_sft.py", "SFTSequenceFeatureExtractor", ("nn.Module",)),
    "SFTGraphProcessor": ("processing_graph_sft.py", "ATOM_FEATURE_SIZES", ("nn.Module",)),
    "SFTPointCloudProcessor": ("processing_point_cloud_sft.py", "load_point_cloud", ("nn.Module",)),
    "NodeClassificationPipeline": ("pipelines_graph_sft.py", "SFTPipeline", ("nn.Module",)),
    "PointCloudSegmentationPipeline": ("pipelines_point_cloud_sft.py", "SFTPipeline", ("nn.Module",)),
}


@pytest.mark.parametrize("name", FILES)
def test_one_file_carries_a_class_and_all_that_it_needs(name: str, tmp_path: Path) -> None:
    file, part, others = FILES[name]
    remote_code.write_code(getattr(modeling_sft, name), tmp_path)
    text = (tmp_path / file).read_text(encoding="utf-8")
    assert part in text and not [other for other in others if other in text]
    assert remote_code.class_reference(getattr(modeling_sft, name)) == f"{file.removesuffix('.py')}.{name}"
    beside = {path.name for path in tmp_path.iterdir()} - {file}
    is_model = name.startswith("SFTFor")
    assert beside == ({"configuration_sft.py", "triton_kernels_sft.py", "triton_tiles_sft.py"} if is_model else set())
    for path in tmp_path.iterdir():
        # Transformers follows imports of siblings only.
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1 and (tmp_path / f"{node.module}.py").is_file(), ast.unparse(node)
    undefined = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F", str(tmp_path)]
    result = subprocess.run(undefined, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_a_class_of_another_module_brings_its_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_layers.py").write_text("WIDTH = 3\n")
    (tmp_path / "my_model.py").write_text(
        "from modeling_sft import SFTForGraphClassification\n\nfrom .my_layers import WIDTH\n\n\n"
        "class MyModel(SFTForGraphClassification):\n    width = WIDTH\n"
    )
    (tmp_path / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path.parent))
    module = __import__(f"{tmp_path.name}.my_model", fromlist=["MyModel"])
    model = build_graph(module.MyModel)
    model.save_pretrained(tmp_path / "saved")
    assert {path.stem for path in (tmp_path / "saved").glob("*.py")} == {"my_model", "my_layers", "configuration_sft"}
    assert model.config.auto_map["AutoModelForGraphClassification"] == "my_model.MyModel"


def test_a_class_of_a_notebook_is_saved_without_code(tmp_path: Path) -> None:
    cls = type("InNotebook", (SFTForGraphClassification,), {"__module__": "__main__"})
    build_graph(cls).save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.glob("*.py")} == {"configuration_sft.py"}


def test_a_class_that_sharding_derives_brings_the_code_of_its_base(tmp_path: Path) -> None:
    cls = type("FSDPGraphProcessor", (SFTGraphProcessor,), {"__module__": "torch.distributed.fsdp"})
    remote_code.write_code(cls, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["processing_graph_sft.py"]


def test_registering_is_harmless_and_takes_auto_classes_that_transformers_does_not_know(tmp_path: Path) -> None:
    cls = type("Registered", (SFTForGraphClassification,), {"__module__": SFTForGraphClassification.__module__})
    cls.register_for_auto_class("AutoModelForGraphRegression")
    build_graph(cls).save_pretrained(tmp_path)
    assert "modeling_sft_graph.py" in {path.name for path in tmp_path.glob("*.py")}
    assert SFTForGraphClassification.auto_class_name == "AutoModelForGraphClassification"


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ({"a": "from .b import f\n\nVALUE = 1\n", "b": "VALUE = 2\n\n\ndef f():\n    pass\n"}, "`VALUE` too"),
        ({"a": "from .b import f as g\n", "b": "def f():\n    pass\n"}, "keep the names they import"),
        ({"a": "def late():\n    from .b import f\n", "b": "def f():\n    pass\n"}, "at the top of the module"),
        ({"a": "from . import b\n", "b": "def f():\n    pass\n"}, "from a module, not from a package"),
        (
            {"a": "import math\nfrom .b import f\n", "b": "math = 3\n\n\ndef f():\n    pass\n"},
            "imported and defined",
        ),
    ],
)
def test_modules_that_cannot_be_joined_are_named(
    modules: dict[str, str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in modules.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setattr(remote_code, "_PACKAGE", tmp_path)
    with pytest.raises(ImportError, match=f"{tmp_path}.*{message}"):
        remote_code._generated(tmp_path / "a.py")


def test_statements_that_stand_in_several_modules_come_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    same = "from logging import getLogger\n\nlogger = getLogger(__name__)\n"
    (tmp_path / "a.py").write_text(f"from .b import f\n{same}\n\ndef g():\n    return f()\n")
    (tmp_path / "b.py").write_text(f"{same}\n\ndef f():\n    return 1\n")
    monkeypatch.setattr(remote_code, "_PACKAGE", tmp_path)
    text = remote_code._generated(tmp_path / "a.py")["a_sft"]
    assert text.count("getLogger(__name__)") == 1 and text.count("import getLogger") == 1
    assert text.index("def f") < text.index("def g")
