"""The rooms of the package (docs/architecture.md): imports point down only, and folders stay small."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from paths import ROOT

# From the bottom to the top; a room may import from itself and from the floors below.
FLOORS = (
    ("modeling_sft.configuration_sft", "modeling_sft.hub"),
    ("modeling_sft.nn",),
    ("modeling_sft.sampling",),
    ("modeling_sft.attention",),
    ("modeling_sft.encoder",),
    ("modeling_sft.sequence", "modeling_sft.graph", "modeling_sft.point_cloud"),
    # The package's own door names what is public; floors above may come through it.
    ("modeling_sft",),
    ("modeling_sft.presets", "modeling_sft.data"),
    ("modeling_sft.training",),
    ("modeling_sft.publishing",),
    ("modeling_sft.cli",),
    ("modeling_sft.__main__", "lab"),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("modeling_sft", "lab")
    for path in sorted((ROOT / package).rglob("*.py"))
}


def room_of(name: str) -> str:
    return "lab" if name.split(".")[0] == "lab" else ".".join(name.split(".")[:2])


def imported_modules(name: str) -> Iterator[str]:
    """The modules of the package and of the laboratory that a module imports, wherever in it."""
    path = MODULES[name]
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            target = ".".join([*start, *(node.module.split(".") if node.module else [])])
            for alias in node.names:
                found = f"{target}.{alias.name}"
                yield found if found in MODULES else target
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


IMPORTS = {name: sorted({target for target in imported_modules(name) if target in MODULES}) for name in MODULES}


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down(name: str) -> None:
    room = room_of(name)
    for target in IMPORTS[name]:
        is_below = room_of(target) == room or FLOOR_OF[room_of(target)] < FLOOR_OF[room]
        assert is_below, f"{name} imports {target}"


@pytest.mark.parametrize("name", [name for name in MODULES if room_of(name) == "modeling_sft.data"])
def test_the_data_of_one_kind_of_input_know_no_other(name: str) -> None:
    kinds = {f"modeling_sft.data.{kind}" for kind in ("sequence", "graph", "point_cloud")}
    own = ".".join(name.split(".")[:3])
    for target in IMPORTS[name]:
        assert own not in kinds or ".".join(target.split(".")[:3]) not in kinds - {own}, f"{name} imports {target}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name in done:
            return
        for target in IMPORTS[name]:
            # A package's door imports its modules, which belong to it.
            if not name.startswith(f"{target}."):
                visit(target, (*path, name))
        done.add(name)

    for name in MODULES:
        visit(name, ())


def folders() -> list[Path]:
    return sorted(
        {path.parent for top in ("modeling_sft", "lab", "scripts", "tests") for path in (ROOT / top).rglob("*.py")}
    )


@pytest.mark.parametrize("folder", folders(), ids=lambda folder: folder.relative_to(ROOT).as_posix())
def test_folders_stay_small(folder: Path) -> None:
    assert len([path for path in folder.glob("*.py") if path.name != "__init__.py"]) <= 20


def test_modules_are_named_by_what_they_hold() -> None:
    tagged = {path.name for path in MODULES.values() if path.stem.endswith("_sft") or "_sft_" in path.stem}
    models = {"modeling_sft.py", "modeling_sft_graph.py", "modeling_sft_point_cloud.py"}
    assert tagged == {"configuration_sft.py", *models}


def test_the_wheel_and_the_repository_stay_small() -> None:
    def lines(*names: str) -> int:
        return sum(len(path.read_text().splitlines()) for name in names for path in (ROOT / name).rglob("*.py"))

    assert lines("modeling_sft") < 21_000
    assert lines("modeling_sft", "lab", "scripts", "tests") < 61_000
    assert not list((ROOT / "model_cards").rglob("*.py"))
