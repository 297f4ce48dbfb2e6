"""The rules of imports hold, and each check of tools/structure.py finds what it is for."""

import ast
from functools import cache
from pathlib import Path

import pytest
import structure
from import_graph import circles, floors, import_graph, imports_between, imports_upwards

ROOT = Path(__file__).parents[1]
FLOORS = [{"top"}, {"left", "right"}, {"low"}]


@cache
def house():
    return import_graph("mmrnn", "mmrnn_kernels")


def test_no_module_is_in_a_circle():
    assert circles(house()) == []


def test_no_import_runs_upwards():
    assert imports_upwards(house(), "mmrnn", floors(ROOT / "pyproject.toml")) == []


def test_the_kernels_know_nothing_of_mmrnn():
    assert imports_between(house(), "mmrnn_kernels", "mmrnn") == []


def test_every_room_is_on_a_floor():
    rooms = {path.name for path in (ROOT / "mmrnn").iterdir() if (path / "__init__.py").is_file()}
    assert set().union(*floors(ROOT / "pyproject.toml")) == rooms


@pytest.fixture
def tiny(tmp_path, monkeypatch, request):
    """`tiny({file: text})`: import graph of a package `tiny` of four rooms and of a package `apart`."""

    def write(texts):
        for room in ("", "top", "left", "right", "low"):
            (tmp_path / name / room).mkdir(parents=True, exist_ok=True)
            (tmp_path / name / room / "__init__.py").touch()
        (tmp_path / other).mkdir()
        (tmp_path / other / "__init__.py").touch()
        for file, text in texts.items():
            path = tmp_path / file.replace("tiny/", f"{name}/").replace("apart/", f"{other}/")
            path.write_text(text.replace("tiny", name))
        return import_graph(name, other)

    # Names of their own: finders keep what they have seen of a package.
    name, other = (f"{one}_{abs(hash(request.node.name))}" for one in ("tiny", "apart"))
    monkeypatch.syspath_prepend(tmp_path)
    write.name, write.other = name, other
    return write


CIRCLES = {
    "at the top": "import tiny.low.a",
    "inside a function": "def later():\n    from tiny.low import a\n    return a",
    "for types": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from tiny.low.a import one",
}


@pytest.mark.parametrize("text", CIRCLES.values(), ids=CIRCLES)
def test_a_circle_is_found(tiny, text):
    graph = tiny({"tiny/low/a.py": "from tiny.low import b", "tiny/low/b.py": text})
    [circle] = circles(graph)
    assert {f"{tiny.name}.low.a", f"{tiny.name}.low.b"} == set(circle.split(" -> "))


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("low/a.py", "from tiny.top import a"),
        ("low/a.py", "def later():\n    import tiny.left.a"),
        ("low/a.py", "from tiny import one"),
        ("right/a.py", "from tiny.left import a"),
    ],
)
def test_an_import_upwards_is_found(tiny, file, text):
    graph = tiny({"tiny/top/a.py": "", "tiny/left/a.py": "", f"tiny/{file}": text})
    [fault] = imports_upwards(graph, tiny.name, FLOORS)
    assert fault.startswith(f"{tiny.name}.{file[:-3].replace('/', '.')} -> {tiny.name}")
    assert circles(graph) == []


def test_imports_downwards_are_no_fault(tiny):
    graph = tiny(
        {"tiny/low/a.py": "", "tiny/left/a.py": "from tiny.low import a", "tiny/top/a.py": "import tiny.left.a"}
    )
    assert circles(graph) == imports_upwards(graph, tiny.name, FLOORS) == []


def test_a_package_that_must_stay_apart(tiny):
    graph = tiny({"tiny/low/a.py": "", "apart/b.py": "def later():\n    from tiny.low import a"})
    assert imports_between(graph, tiny.other, tiny.name) == [f"{tiny.other}.b -> {tiny.name}.low.a"]
    assert imports_between(graph, tiny.name, tiny.other) == []


def parsed(text):
    return [("a.py", ast.parse(text))]


def test_a_missing_docstring_is_found():
    text = 'class Wide:\n    """A class."""\n    def one(self): ...\n    def _two(self): ...\ndef three(): ...'
    missing, _ = structure.docstring_figures(parsed(text))
    assert missing.faults == ["a.py: Wide.one", "a.py: three"]
    assert missing.total == 3


@pytest.mark.parametrize("word", ["What", "How", "Where", "Whether"])
def test_a_docstring_that_asks_is_found(word):
    _, asking = structure.docstring_figures(parsed(f'"""Whatever."""\ndef _one():\n    """{word} it does."""'))
    assert asking.faults == [f"a.py: _one: {word} it does."]


def test_a_long_function_is_found():
    figure = structure.long_functions(parsed("def one():\n" + "    pass\n" * 59 + "def two():\n" + "    pass\n" * 60))
    assert figure.faults == ["a.py: two has 61 lines"]


def test_a_guessed_attribute_is_found():
    figure = structure.guessed_attributes(parsed("getattr(x, name)\ngetattr(x, 'depth', 0)"))
    assert figure.faults == ["a.py:2: getattr(x, 'depth', 0)"]


def test_a_short_name_of_a_knob_is_found():
    places = dict(structure.knobs(parsed("class One:\n    def __init__(self, width, *, tied=False): ...")))
    assert places["a.py: One.__init__"] == "tied"
    assert "tied" in structure.SHORT_NAMES


def test_no_exception_is_left_over(monkeypatch):
    named = set(structure.FOREIGN), set(structure.PICTURE), set(structure.LONG_KERNELS)
    for table in ("FOREIGN", "PICTURE", "LONG_KERNELS"):
        monkeypatch.setattr(structure, table, {})
    files = list(structure.sources(structure.PACKAGES))
    assert {fault.partition(":")[0] for fault in structure.guessed_attributes(files).faults} >= named[0]
    assert {fault.partition(":")[0] for fault in structure.pictures().faults} == named[1]
    long = (fault.rpartition(" has ")[0].replace(": ", ":") for fault in structure.long_functions(files).faults)
    assert set(long) >= named[2]
