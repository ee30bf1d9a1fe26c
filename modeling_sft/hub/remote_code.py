"""The code that travels with a checkpoint: one generated file for each model, processor or pipeline.

Transformers copies the file of a class and the siblings that it imports, flat. The package has rooms instead: so the
module of a class and all that it imports from the package are joined to one file, each module behind those it needs.
The configuration and the CUDA kernels stay files of their own. Code that was itself loaded from a checkpoint is copied
as it is, so that it stays the same to the byte however often it is loaded and saved.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

# Only the package can generate: in a checkpoint, this is part of another file.
_PACKAGE = Path(__file__).resolve().parents[1] if __name__.endswith(".hub.remote_code") else None
# Modules that stay files of their own, by their place in the package.
_OWN_FILES = {
    "configuration_sft.py": "configuration_sft",
    "attention/triton/kernels.py": "triton_kernels_sft",
    "attention/triton/tiles.py": "triton_tiles_sft",
}


def class_reference(cls: type) -> str:
    """What `auto_map` says of a class: the file that carries it, and its name, as in `"modeling_sft.SFTModel"`."""
    source = source_file(cls)
    return f"{cls.__module__.split('.')[-1] if source is None else _flat_name(source)}.{cls.__name__}"


def write_code(cls: type, folder: str | Path) -> None:
    """Write the code of a class, and all that it imports from the package, into a folder.

    Classes of a notebook have no file; nothing is written for them.

    Raises:
        ImportError: the modules of the package cannot be joined; the message says why.
    """
    source = source_file(cls)
    if source is None:
        return
    for name, text in (_generated(source) if _is_ours(source) else _copied(source)).items():
        Path(folder, f"{name}.py").write_text(text, encoding="utf-8")


def source_file(cls: type) -> Path | None:
    """The file that defines a class; `None` if there is none, as in a notebook.

    Classes that PyTorch derives at run time, as sharding does, stand for the class that they derive from.
    """
    own = next(base for base in cls.__mro__ if not base.__module__.startswith("torch."))
    module = sys.modules.get(own.__module__)
    path = getattr(module, "__file__", None)
    return None if path is None or own.__module__ == "__main__" else Path(path).resolve()


def _is_ours(source: Path) -> bool:
    return _PACKAGE is not None and source.is_relative_to(_PACKAGE)


def _flat_name(source: Path) -> str:
    """The name of a module's file in a checkpoint, without `.py`; sequences are the family without a name."""
    if _PACKAGE is None or not source.is_relative_to(_PACKAGE):
        return source.stem
    place = source.relative_to(_PACKAGE)
    if place.as_posix() in _OWN_FILES or source.stem.startswith("modeling_sft"):
        return _OWN_FILES.get(place.as_posix(), source.stem)
    return "_".join([source.stem, *(part for part in place.parent.parts if part != "sequence"), "sft"])


def _copied(source: Path) -> dict[str, str]:
    """A file and the siblings that it imports, as they are."""
    texts: dict[str, str] = {}
    pending = [source]
    while pending:
        path = pending.pop()
        if path.stem in texts or not path.is_file():
            continue
        texts[path.stem] = path.read_text(encoding="utf-8")
        pending += [path.with_name(f"{node.module}.py") for node in _relative_imports(ast.parse(texts[path.stem]))]
    return texts


def _generated(entry: Path) -> dict[str, str]:
    """The files of a module of the package: what is joined to one, and those that stay apart."""
    joined, apart = _needed(entry)
    texts = {_flat_name(entry): _joined(entry, joined)}
    for source in apart:
        text = source.read_text(encoding="utf-8")
        texts[_flat_name(source)] = _with_flat_imports(source, text, ast.parse(text))
    return texts


def _needed(entry: Path) -> tuple[list[Path], list[Path]]:
    """All modules that a module needs, itself included, each behind its own needs: those to join, and those apart."""
    order: list[Path] = []

    def visit(source: Path) -> None:
        if source in order:
            return
        for node in _relative_imports(ast.parse(source.read_text(encoding="utf-8"))):
            visit(_target(source, node))
        order.append(source)

    visit(entry)
    apart = [source for source in order if _is_apart(source)]
    return [source for source in order if source not in apart], apart


def _is_apart(source: Path) -> bool:
    assert _PACKAGE is not None
    return source.relative_to(_PACKAGE).as_posix() in _OWN_FILES


def _relative_imports(tree: ast.AST) -> Iterator[ast.ImportFrom]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level > 0)


def _target(source: Path, node: ast.ImportFrom) -> Path:
    """The module that a relative import names."""
    target = source.parents[node.level - 1].joinpath(*(node.module or "").split(".")).with_suffix(".py")
    if node.module is None or not target.is_file():
        raise ImportError(f"{source}, line {node.lineno}: import from a module, not from a package.")
    return target


def _joined(entry: Path, sources: list[Path]) -> str:
    """One text of several modules: their imports first, then the rest of each, in this order."""
    assert _PACKAGE is not None
    imports = _Imports()
    defined: dict[str, str] = {}
    parts = []
    for source in sources:
        text = source.read_text(encoding="utf-8")
        tree = ast.parse(text)
        lines = _with_flat_imports(source, text, tree).splitlines()
        for node in tree.body:
            if _is_left_out(source, node, imports) or _is_repeated(node, defined, source):
                lines[node.lineno - 1 : node.end_lineno] = [""] * ((node.end_lineno or node.lineno) - node.lineno + 1)
        title = f"# {_PACKAGE.name}/{source.relative_to(_PACKAGE).as_posix()}"
        about = [f"# {line}".rstrip() for line in (ast.get_docstring(tree) or "").splitlines()]
        parts.append("\n".join([title, "#", *about]) + "\n\n\n" + _without_gaps(lines))
    clashing = sorted(defined.keys() & imports.names)
    if clashing:
        raise ImportError(f"{entry}: `{clashing[0]}` is both imported and defined; rename one of them.")
    head = (
        f"# Generated from {_PACKAGE.name}: {entry.relative_to(_PACKAGE).as_posix()} and all that it imports.\n"
        f"# Change it there, where each part is a module of its own.\n"
    )
    return "\n\n".join([f"{head}{imports}", *parts])


class _Imports:
    """The imports of several modules, merged."""

    def __init__(self) -> None:
        self.modules: dict[str, ast.Import] = {}
        self.members: dict[tuple[int, str], dict[str, ast.alias]] = {}
        self.names: set[str] = set()

    def add(self, node: ast.Import | ast.ImportFrom, module: str | None = None) -> None:
        """Take in an import statement, of a module by another name if one is given."""
        for alias in node.names:
            self.names.add(alias.asname or alias.name.split(".")[0])
            written = ast.unparse(alias)
            if isinstance(node, ast.Import):
                self.modules[written] = ast.Import([alias])
            else:
                place = (1, module) if module is not None else (0, node.module or "")
                self.members.setdefault(place, {})[written] = alias

    def __str__(self) -> str:
        future = [key for key in self.members if key == (0, "__future__")]
        groups: dict[int, list[str]] = {0: [], 1: [], 2: []}
        for written, plain in sorted(self.modules.items()):
            groups[_group(0, written.split()[0])].append(ast.unparse(plain))
        for place in sorted(self.members.keys() - set(future)):
            groups[_group(*place)].append(self._line(place))
        blocks = ["\n".join(self._line(place) for place in future), *("\n".join(group) for group in groups.values())]
        return "\n" + "\n\n".join(block for block in blocks if block) + "\n"

    def _line(self, place: tuple[int, str]) -> str:
        names = [written for written, _ in sorted(self.members[place].items())]
        start = f"from {'.' * place[0]}{place[1]} import "
        line = start + ", ".join(names)
        return line if len(line) < 120 else f"{start}(\n    " + ",\n    ".join(names) + ",\n)"


def _group(level: int, module: str) -> int:
    """Imports come in three groups: the standard library, other libraries, siblings."""
    return 2 if level else 0 if module.split(".")[0] in sys.stdlib_module_names else 1


def _is_left_out(source: Path, node: ast.stmt, imports: _Imports) -> bool:
    """Whether a statement of a module has no place of its own in the joined text; imports are taken in."""
    if isinstance(node, ast.ImportFrom) and node.level:
        target = _target(source, node)
        if any(alias.asname for alias in node.names):
            raise ImportError(f"{source}, line {node.lineno}: modules that are joined keep the names they import.")
        if _is_apart(target):
            imports.add(node, _flat_name(target))
        return True
    if isinstance(node, ast.Import | ast.ImportFrom):
        imports.add(node)
        return True
    is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and node.lineno == 1
    return is_docstring or "__all__" in _names_defined(node)


def _is_repeated(node: ast.stmt, defined: dict[str, str], source: Path) -> bool:
    """Whether the same statement was there before; the names that it defines are taken in."""
    text = ast.unparse(node)
    for name in _names_defined(node):
        if name in defined:
            if defined[name] != text:
                raise ImportError(f"{source}, line {node.lineno}: another module defines `{name}` too; rename one.")
            return True
        defined[name] = text
    return False


def _names_defined(node: ast.stmt) -> list[str]:
    """The names that a statement defines; `_` is no name, but says that nothing will ask for it."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name] if node.name != "_" else []
    targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _with_flat_imports(source: Path, text: str, tree: ast.AST) -> str:
    """The text of a module whose imports of files that stay apart name these, wherever they stand in it."""
    lines = text.splitlines(keepends=True)
    for node in _relative_imports(tree):
        target = _target(source, node)
        if _is_apart(target):
            written = "." * node.level + str(node.module)
            lines[node.lineno - 1] = lines[node.lineno - 1].replace(written, f".{_flat_name(target)}", 1)
        elif node.col_offset:
            raise ImportError(f"{source}, line {node.lineno}: import at the top of the module.")
    return "".join(lines)


def _without_gaps(lines: list[str]) -> str:
    """The lines as one text, with at most two empty ones on end and none at its start."""
    kept: list[str] = []
    for line in lines:
        if line or (kept and kept[-2:] != ["", ""]):
            kept.append(line)
    return "\n".join(kept).strip("\n") + "\n"
