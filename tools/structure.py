"""Figures of the code's structure, each with its bound: imports, contracts, docstrings, function lengths, names.

    python tools/structure.py

Prints every place that breaks a bound; the exit code is 1 when there is one. The floors are those of the import
contracts in pyproject.toml.
"""

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from import_graph import circles, floors, import_graph, imports_between, imports_upwards

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (ROOT / "mmrnn", ROOT / "kernels" / "mmrnn_kernels")
CODE = (*PACKAGES, ROOT / "tools", ROOT / "examples")

LOOSE = {"__init__.py", "__main__.py", "py.typed"}
MAX_LINES = 60

CHUNKS = (
    "one loop over chunks whose tiles stay in registers: 20 to 30 arguments, addresses, loads, stores; maths in helpers"
)
POSITIONS = "one loop over positions: 15 to 25 arguments, addresses, loads, stores; maths in helpers"
LONG_KERNELS = {
    f"kernels/mmrnn_kernels/{folder}/triton/{name}.py:{name}_kernel": reason
    for folder, names, reason in (
        ("wkv6", ("chunk_backward", "chunk_forward"), CHUNKS),
        ("wkv6", ("recurrent_backward",), POSITIONS),
        ("wkv7", ("chunk_backward", "chunk_forward"), CHUNKS),
    )
    for name in names
}
"""`FILE:FUNCTION` of Triton kernels over 60 lines -> reason; a kernel is one function, whatever it calls."""

FOREIGN = {
    "kernels/mmrnn_kernels/common/cpu_features.py": "torch.cpu, whose functions differ between versions",
    "mmrnn/backbones/hf_fields.py": "configurations of transformers",
    "mmrnn/config/instantiate.py": "any module that a card names",
    "mmrnn/config/override_errors.py": "exceptions of Hydra",
    "mmrnn/config/skip_init.py": "functions of torch",
    "mmrnn/data/image.py": "images of Pillow",
    "mmrnn/encoders/timm_vit.py": "modules of timm",
    "mmrnn/encoders/tower.py": "attributes of torch by name",
}
"""Files that may call `getattr` with a default -> the objects they call it on, which have no contract of ours."""

SHORT_NAMES = {
    *("accumulate", "batch", "cache", "checkpoint", "chunk", "clip", "decay", "decay_final", "held", "layer_decay"),
    *("length", "limit", "log", "lr_final", "packed", "rates", "senses", "snapshot", "theta", "tied"),
}
"""Names that do not say what a knob is; the field's are grad_accum_steps, batch_size, feature_cache_gib, ..."""

PICTURE = {
    "conf/prompt/qwen_vl.yaml": "published prompt",
}
"""Files that may contain the word `picture`; elsewhere it is `image`."""


@dataclass
class Figure:
    """One figure: its name, the places that break its bound, and, for a share, the number of places looked at."""

    name: str
    faults: list[str] = field(default_factory=list)
    total: int | None = None

    def __str__(self) -> str:
        value = str(len(self.faults)) if self.total is None else f"{1 - len(self.faults) / max(self.total, 1):.1%}"
        bound = "0" if self.total is None else "100%"
        return f"{self.name:<62} {value:>7}   (bound {bound})"


def sources(folders: Sequence[Path]) -> Iterator[tuple[str, ast.Module]]:
    """Every Python file below some folders: its path from the root, and its syntax tree."""
    for path in sorted(path for folder in folders for path in folder.rglob("*.py")):
        yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def definitions(tree: ast.AST, name: str = "", public: bool = True) -> Iterator[tuple[str, bool, ast.AST]]:
    """Classes and functions with their names; public: no part of the name is private, or inside a function."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from definitions(node, name, public)
            continue
        full, shown = f"{name}.{node.name}".strip("."), public and not node.name.startswith("_")
        yield full, shown, node
        yield from definitions(node, full, shown and isinstance(node, ast.ClassDef))


def docstring_figures(files: Sequence[tuple[str, ast.Module]]) -> list[Figure]:
    """Public definitions without docstrings, and docstrings that begin with a question word."""
    missing = Figure("public functions, methods and classes with a docstring", total=0)
    asking = Figure("docstrings that begin with What, How, Where, Whether, Which")
    for file, tree in files:
        every = [("", False, tree), *definitions(tree)]
        for name, public, node in every:
            text = ast.get_docstring(node)
            missing.total += public
            if public and not text:
                missing.faults.append(f"{file}: {name}")
            if text and re.match(r"(What|How|Where|Whether|Which)\b", text):
                asking.faults.append(f"{file}: {name}: {text.splitlines()[0]}")
    return [missing, asking]


def long_functions(files: Sequence[tuple[str, ast.Module]]) -> Figure:
    """Functions over 60 lines that are not among the kernels with a reason."""
    figure = Figure(f"functions over {MAX_LINES} lines")
    for file, tree in files:
        for name, _, node in definitions(tree):
            lines = node.end_lineno - node.lineno + 1
            if not isinstance(node, ast.ClassDef) and lines > MAX_LINES and f"{file}:{name}" not in LONG_KERNELS:
                figure.faults.append(f"{file}: {name} has {lines} lines")
    return figure


def guessed_attributes(files: Sequence[tuple[str, ast.Module]]) -> Figure:
    """Calls of `getattr` with a default on our own objects."""
    figure = Figure("getattr with a default where a contract is due")
    for file, tree in files:
        for node in ast.walk(tree):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr"
            if called and len(node.args) == 3 and file not in FOREIGN:
                figure.faults.append(f"{file}:{node.lineno}: {ast.unparse(node)}")
    return figure


def knobs(files: Sequence[tuple[str, ast.Module]]) -> Iterator[tuple[str, str]]:
    """Keys of the cards and keyword-only arguments of public functions, each with its place."""
    for path in sorted((ROOT / "conf").rglob("*.yaml")):
        pending = [yaml.safe_load(path.read_text(encoding="utf-8"))]
        while pending:
            node = pending.pop()
            if isinstance(node, dict):
                yield from ((path.relative_to(ROOT).as_posix(), str(key)) for key in node)
            pending += node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for file, tree in files:
        for name, public, node in definitions(tree):
            if not isinstance(node, ast.ClassDef) and (public or name.endswith(".__init__")):
                yield from ((f"{file}: {name}", argument.arg) for argument in node.args.kwonlyargs)


def pictures() -> Figure:
    """Lines with the word `picture` outside the files that may contain it."""
    figure = Figure("uses of the word picture")
    folders = [path for name in ("mmrnn", "conf", "docs") for path in (ROOT / name).rglob("*.*")]
    for path in sorted([*folders, ROOT / "README.md"]):
        name = path.relative_to(ROOT).as_posix()
        if path.suffix in (".py", ".yaml", ".md", ".json") and name not in PICTURE:
            lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
            figure.faults += [f"{name}:{n}: {line}" for n, line in lines if re.search(r"(?i)\bpictures?\b", line)]
    return figure


def figures() -> list[Figure]:
    """All figures of this checkout."""
    graph = import_graph("mmrnn", "mmrnn_kernels")
    library, everything = list(sources(PACKAGES)), list(sources(CODE))
    loose = [path.name for path in (ROOT / "mmrnn").iterdir() if path.is_file() and path.name not in LOOSE]
    short = [f"{place}: {name}" for place, name in knobs(library) if name in SHORT_NAMES]
    return [
        Figure("circles of imports", circles(graph)),
        Figure("imports upwards", imports_upwards(graph, "mmrnn", floors(ROOT / "pyproject.toml"))),
        Figure("imports of mmrnn in mmrnn_kernels", imports_between(graph, "mmrnn_kernels", "mmrnn")),
        Figure("files in mmrnn/ beside __init__, __main__ and py.typed", sorted(loose)),
        guessed_attributes(library),
        *docstring_figures(everything),
        long_functions(everything),
        Figure("knobs whose name does not say what they are", short),
        pictures(),
    ]


def main() -> int:
    """Print the figures; 1 when a bound is broken."""
    sys.path[:0] = [str(folder.parent) for folder in PACKAGES]
    every = figures()
    for figure in every:
        print(figure)
        for fault in figure.faults:
            print(f"    {fault}")
    return int(any(figure.faults for figure in every))


if __name__ == "__main__":
    sys.exit(main())
