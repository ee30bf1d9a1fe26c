"""The package as a distribution: metadata, imports, README and what wheel and sdist contain."""

import ast
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import modeling_sft
from paths import ROOT

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest itself depends on tomli
    import tomli as tomllib

PACKAGE = ROOT / "modeling_sft"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def run_python(arguments: list[str], folder: Path, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def requirement_name(requirement: str) -> str:
    return re.split(r"[<>=!~;\[ ]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def test_version_is_the_newest_of_the_changelog():
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None and newest[1] == modeling_sft.__version__


def test_every_requirement_has_a_tested_version():
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    tested = {requirement_name(line) for line in constraints if "==" in line}
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    required = {requirement_name(requirement) for group in groups for requirement in group} - {PROJECT["name"]}
    assert required <= tested


def test_extras_named_in_code_and_documents_exist():
    files = [*PACKAGE.rglob("*.py"), *ROOT.glob("scripts/**/*.py"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    mentions = {
        (extra, path.name)
        for path in files
        for group in re.findall(r"(?:modeling-sft|install \"\.)\[([\w,-]+)\]", path.read_text(encoding="utf-8"))
        for extra in group.split(",")
    }
    assert mentions, "the README names at least one extra"
    assert not {mention for mention in mentions if mention[0] not in PROJECT["optional-dependencies"]}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_import_core_dependencies_only(path: Path):
    core = {requirement_name(requirement).replace("-", "_") for requirement in PROJECT["dependencies"]}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        for name in names:
            assert name.split(".")[0] in core | sys.stdlib_module_names, (
                f"line {node.lineno}: import it where it is used"
            )


@pytest.mark.slow
def test_import_needs_no_optional_library():
    blocked = (
        *("scipy", "trimesh", "torch_geometric", "networkx", "rdkit"),
        *("accelerate", "datasets", "evaluate", "matplotlib", "sklearn"),
    )
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked})); import modeling_sft; print(modeling_sft.__file__)"
    )
    assert run_python(["-c", script], ROOT).strip()


def test_public_names_exist():
    assert "__version__" not in modeling_sft.__all__
    assert sorted(set(modeling_sft.__all__)) == sorted(modeling_sft.__all__)
    assert not [name for name in modeling_sft.__all__ if not hasattr(modeling_sft, name)]


def run_snippets(text: str, count: int, folder: Path) -> str:
    """Run a page's Python blocks, of which there must be `count`, as one script; its output."""
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    # TRL is not installed; the paths of the user's own data have tests of their own (scripts/test_readme.py), and
    # no data set is read from DATA_DIR.
    elsewhere = ("trl", "runs/meshes", "runs/texts", "runs/molecules", "my_graphs.pt", "DATA_DIR")
    snippets = [block for block in blocks if not any(name in block for name in elsewhere)]
    assert len(snippets) == count
    (folder / "model_cards").symlink_to(ROOT / "model_cards")
    (folder / "snippets.py").write_text("\n".join(snippets), encoding="utf-8")
    return run_python(["snippets.py"], folder, PYTHONPATH=str(ROOT), HF_HOME=str(folder / "cache"))


@pytest.mark.slow
def test_readme_snippets_run(tmp_path: Path):
    if not (ROOT / "model_cards").is_dir():
        pytest.skip("the sdist has no trained models")
    assert "eval_accuracy" in run_snippets(README, 5, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count", "libraries"),
    [
        # Minutes: tests/test_export.py does the same to smaller models.
        pytest.param("export.md", 3, ("onnx", "onnxruntime", "onnxscript"), marks=pytest.mark.full),
        ("sequences.md", 2, ()),
        ("graphs.md", 4, ("rdkit", "scipy", "torch_geometric")),
    ],
    ids=["export", "sequences", "graphs"],
)
def test_snippets_of_a_page_run(name: str, count: int, libraries: tuple[str, ...], tmp_path: Path):
    for library in libraries:
        pytest.importorskip(library)
    page = ROOT / "docs" / name
    if not page.is_file():
        pytest.skip("the sdist has no docs")
    run_snippets(page.read_text(encoding="utf-8"), count, tmp_path)


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the sdist, the wheel made from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run_python(["-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)], folder)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def source_files() -> set[str]:
    files = {path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.py")}
    return files | {"modeling_sft/py.typed", "modeling_sft/publishing/model_card.md"}


@pytest.mark.slow
def test_wheel_contains_the_package_and_nothing_else(distributions: tuple[Path, Path]):
    with zipfile.ZipFile(distributions[0]) as wheel:
        names = {name for name in wheel.namelist() if not name.endswith("/")}
        metadata = wheel.read(next(name for name in names if name.endswith(".dist-info/METADATA"))).decode()
    assert {name for name in names if ".dist-info/" not in name} == source_files()
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert f"\nVersion: {modeling_sft.__version__}\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata


@pytest.mark.slow
def test_sdist_contains_what_a_build_and_the_tests_need(distributions: tuple[Path, Path]):
    with tarfile.open(distributions[1]) as sdist:
        names = {member.name.partition("/")[2] for member in sdist.getmembers() if member.isfile()}
    assert source_files() <= names
    root_files = {"pyproject.toml", "constraints.txt", "Makefile", "README.md", "CHANGELOG.md", "LICENSE"}
    assert root_files | {"scripts/train.py", "configuration/digits/sft.yaml", "tests/test_package.py"} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith((".venv", "outputs", "dist/"))]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [0, 1], ids=["wheel", "sdist"])
def test_distributions_install(distributions: tuple[Path, Path], tmp_path: Path, kind: int):
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    run_python([*install, "--target", str(tmp_path / "site"), str(distributions[kind])], tmp_path)
    script = "import modeling_sft; print(modeling_sft.__file__); print(modeling_sft.__version__)"
    file, version = run_python(["-c", script], tmp_path, PYTHONPATH=str(tmp_path / "site")).split()
    assert Path(file) == tmp_path / "site" / "modeling_sft" / "__init__.py"
    assert version == modeling_sft.__version__
