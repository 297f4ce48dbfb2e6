"""Import rules: no circles, nothing upwards, nothing between what must stay apart."""

import re
from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
from importlinter.api import read_configuration


def floors(file: Path) -> list[set[str]]:
    """Rooms of every floor from the top down, as the layers contract of a pyproject.toml lists them."""
    contracts = read_configuration(str(file))["contracts_options"]
    [layers] = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    return [set(re.split(r"\s*\|\s*", layer)) for layer in layers]


def import_graph(*packages: str) -> grimp.ImportGraph:
    """Imports of installed packages, those inside functions and under TYPE_CHECKING included."""
    return grimp.build_graph(*packages, exclude_type_checking_imports=False, cache_dir=None)


def circles(graph: grimp.ImportGraph) -> list[str]:
    """Circles of modules; one is broken at its first import before the next is looked for."""
    edges = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    found = []
    while True:
        try:
            TopologicalSorter(edges).prepare()
        except CycleError as error:
            circle = error.args[1][::-1]
            edges[circle[0]] = edges[circle[0]] - {circle[1]}
            found.append(" -> ".join(circle))
        else:
            return found


def imports_upwards(graph: grimp.ImportGraph, package: str, floors: Sequence[set[str]]) -> list[str]:
    """Imports of a room from a floor above, or from another room of its own floor.

    The package itself lies below the first floor: only the command line may import it.
    """
    depth = {f"{package}.{room}": floor for floor, rooms in enumerate(floors) for room in rooms} | {package: 0.5}
    found = []
    for importer in sorted(graph.modules):
        room = ".".join(importer.split(".")[:2])
        for imported in sorted(graph.find_modules_directly_imported_by(importer)):
            other = ".".join(imported.split(".")[:2])
            inside = room in depth and other in depth and importer != package
            if inside and room != other and depth[other] <= depth[room]:
                found.append(f"{importer} -> {imported}")
    return found


def imports_between(graph: grimp.ImportGraph, importer: str, imported: str) -> list[str]:
    """Modules of one package that import modules of another."""
    inside = {importer, *graph.find_descendants(importer)}
    known = {imported, *graph.find_descendants(imported)}
    return [f"{a} -> {b}" for a in sorted(inside) for b in sorted(graph.find_modules_directly_imported_by(a) & known)]
