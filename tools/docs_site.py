"""The documentation site: pages of the repository, tables of all cards, and the reference of the Python packages.

    pip install 'mmrnn[docs]'
    python tools/docs_site.py            # build/docs, and the site in build/site

Pages are gathered in one folder, so that they stay readable where they lie; links between them are rewritten. A warning
(a link that leads nowhere, a docstring that cannot be read) fails the build.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from os.path import normpath
from pathlib import Path, PurePosixPath

import docs_cards
import docs_tables

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "build" / "docs"

PACKAGES = (
    *("mmrnn", "mmrnn.types", "mmrnn.encoders", "mmrnn.connectors", "mmrnn.backbones", "mmrnn.tokenizers"),
    *("mmrnn.prompts", "mmrnn.data", "mmrnn.training", "mmrnn.weights", "mmrnn_kernels"),
)
"""Packages whose names (`__all__`) are for users."""

PLACES = {
    "README.md": "index.md",
    "README.zh.md": "zh.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "examples": "examples.md",
    "tutorials": "tutorials/index.md",
    "conf": "cards/index.md",
    "mmrnn/weights/formats": "formats.md",
}
"""File or folder of the repository -> page of the site; `docs/NAME.md` is NAME.md."""

LINK = re.compile(r"(?<=\]\()(?!https?:|#|mailto:)([^)#\s]+)")
CODE = re.compile(r"(```.*?```|`[^`\n]+`)", re.S)


def place_of(path: str) -> str:
    """Return the page of a file of the repository.

    Raises:
        ValueError: it has none.
    """
    path = path.rstrip("/")
    if path.startswith("tutorials/"):
        return path
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if found := re.fullmatch(r"kernels/mmrnn_kernels/(\w+)/README\.md", path):
        return f"operators/{found[1]}.md"
    if found := re.fullmatch(r"conf/(\w+)", path):
        return f"cards/{found[1]}.md"
    for known, place in PLACES.items():
        if path == known or path.startswith(f"{known}/"):
            return place
    raise ValueError(f"{path} has no page; add it to PLACES")


def rewritten(text: str, source: str) -> str:
    """Return the text of a page with its links to files of the repository as links to pages.

    Args:
        text: Markdown.
        source: file of the repository.

    Raises:
        ValueError: a link leads to a file that has no page.
    """
    here = PurePosixPath(place_of(source)).parent

    def link(match: re.Match[str]) -> str:
        page = place_of(normpath(PurePosixPath(source).parent / match[1]))
        return "../" * len(here.parts) + page

    return "".join(part if part.startswith("`") else LINK.sub(link, part) for part in CODE.split(text))


def pages() -> Iterator[tuple[str, str]]:
    """File name and text of every page."""
    sources = [name for name in PLACES if name.endswith(".md")]
    sources += [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").glob("*.md"))]
    sources += [path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob("kernels/mmrnn_kernels/*/README.md"))]
    for source in sources:
        yield place_of(source), rewritten((ROOT / source).read_text(encoding="utf-8"), source)
    yield "examples.md", examples()
    yield "formats.md", docs_tables.formats_page()
    yield from tutorials()
    for name, text in docs_cards.pages():
        yield f"cards/{name}", text
    yield from reference()


def tutorials() -> Iterator[tuple[str, str]]:
    """Pages with the notebooks, and one that lists them."""
    titles = []
    for path in sorted((ROOT / "tutorials").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        texts = ["".join(cell["source"]) for cell in cells]
        titles.append(f"- [{texts[0].splitlines()[0].lstrip('# ')}]({path.stem}.md)")
        parts = [
            rewritten(text, f"tutorials/{path.stem}.md")
            if cell["cell_type"] == "markdown"
            else f"```{'bash' if text.startswith('!') else 'python'}\n{text}\n```"
            for cell, text in zip(cells, texts, strict=True)
        ]
        yield f"tutorials/{path.stem}.md", "\n\n".join(parts) + "\n"
    yield "tutorials/index.md", "# Tutorials\n\nNotebooks of the folder `tutorials`.\n\n" + "\n".join(titles) + "\n"


def examples() -> str:
    """Page with the programs of `examples/`."""
    parts = ["# Examples"]
    for path in sorted((ROOT / "examples").glob("*.py")):
        parts.append(f"## `{path.name}`\n\n```python\n{path.read_text(encoding='utf-8').strip()}\n```")
    return "\n\n".join(parts) + "\n"


def reference() -> Iterator[tuple[str, str]]:
    """Pages of the Python packages: everything that each offers."""
    rows = []
    for package in PACKAGES:
        names = sorted(name for name in import_module(package).__all__ if not name.startswith("_"))
        summary = (import_module(package).__doc__ or "").strip().splitlines()[0]
        rows.append((f"[`{package}`]({package}.md)", summary, str(len(names))))
        body = "\n\n".join(f"::: {package}.{name}" for name in names)
        yield f"api/{package}.md", f"# `{package}`\n\n{summary}\n\n{body}\n"
    yield "api/index.md", f"# Python\n\n{docs_tables.table(('package', 'contents', 'names'), rows)}\n"


def gather() -> None:
    """Write all pages into `build/docs`, and their images."""
    shutil.rmtree(PAGES, ignore_errors=True)
    shutil.copytree(ROOT / "docs" / "images", PAGES / "images")
    for name, text in pages():
        path = PAGES / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def main() -> int:
    """Gather the pages and build the site.

    Returns:
        The exit code: 1 where the generator, or its reader of docstrings, has warned.
    """
    gather()
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    done = subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(done.stdout, end="")
    # Warnings on docstrings do not fail a strict build.
    return done.returncode or int(any(line.startswith("griffe:") for line in done.stdout.splitlines()))


if __name__ == "__main__":
    sys.exit(main())
