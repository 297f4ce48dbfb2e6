"""Drawing of the scan orders, made by the scan functions themselves.

Every panel is a block of a backbone: the grid has the turn at which each patch is read, the strip below it all
positions of a row in the order of reading, text included.
"""

import torch
from torch import Tensor

from drawings.patches import patch_colour
from drawings.svg import Drawing
from mmrnn import conf_dir
from mmrnn.backbones.scan import scan_permutations
from mmrnn.config.instantiate import instantiate
from mmrnn.config.yaml_file import read_yaml
from mmrnn.types import SLOT, ImageSpan, Layout, Scan, Sequence

LAYOUT = Layout(rows=4, cols=4, suffix=1)
"""Patches, and a class token behind them."""

BEFORE, AFTER = 3, 3
"""Positions of text before and behind the image."""

DEPTH = 8
CELL, GAP, STRIP = 30, 42, 8
SIDE = CELL * LAYOUT.cols
PANEL = BEFORE + LAYOUT.tokens + AFTER
COLUMN, ROW = PANEL * STRIP + GAP, SIDE + 108
COLUMNS = 4


def example() -> Sequence:
    """Return a row with an image between two texts."""
    ids = torch.ones(1, PANEL, dtype=torch.long)
    ids[:, BEFORE : BEFORE + LAYOUT.tokens] = SLOT
    return Sequence(ids, (ImageSpan(0, BEFORE, LAYOUT),))


def orders(scan: Scan) -> list[list[int]]:
    """Positions of the row in the order in which each block reads them, until the blocks repeat."""
    found: list[Tensor | None] = scan_permutations(scan, DEPTH, example())
    rows = [[*range(PANEL)] if order is None else order[0].tolist() for order in found]
    period = next(n for n in range(1, DEPTH + 1) if rows[: DEPTH - n] == rows[n:])
    return rows[:period]


def scans() -> dict[str, Scan]:
    """Every scan that a card names."""
    paths = sorted((conf_dir() / "scan").glob("*.yaml"))
    return {path.stem: instantiate(read_yaml(path)) for path in paths}


def scan_orders() -> str:
    """Return the drawing as SVG."""
    groups = {name: orders(scan) for name, scan in scans().items()}
    lines: list[list[str]] = [[]]
    for name, panels in groups.items():
        if sum(len(groups[one]) for one in lines[-1]) + len(panels) > COLUMNS:
            lines.append([])
        lines[-1].append(name)
    described = "; ".join(f"{name}: {len(panels)} of its blocks differ" for name, panels in groups.items())
    drawing = Drawing(
        COLUMNS * COLUMN + GAP,
        len(lines) * ROW + 46,
        "Scan orders of image patches",
        "Order in which the blocks of a recurrent backbone read the patches of an image of 4 by 4 patches, for every "
        f"scan; text and the class token keep their positions. {described}.",
    )
    for line, names in enumerate(lines):
        x = GAP
        for name in names:
            y = line * ROW + 34
            drawing.text(x, y, f"scan={name}", size=15, style="bold code", anchor="start")
            for block, order in enumerate(groups[name]):
                panel(drawing, x, y + 12, order, blocks(block, len(groups[name])))
                x += COLUMN
    legend(drawing, GAP, len(lines) * ROW + 22)
    return str(drawing)


def blocks(block: int, period: int) -> str:
    """Say which blocks read in the order of one of them."""
    return "every block" if period == 1 else f"blocks {block}, {block + period}, {block + 2 * period}, ..."


def panel(drawing: Drawing, x: float, y: float, order: list[int], caption: str) -> None:
    """Draw the order of one block: the grid with its path, and the strip."""
    place = {BEFORE + index: divmod(n, LAYOUT.cols) for n, index in enumerate(LAYOUT.patch_indices().tolist())}
    turns = [place[position] for position in order if position in place]
    drawing.text(x, y + 8, caption, size=12, fill="faint", anchor="start")
    top = y + 18
    for row, col in turns:
        fill = patch_colour(row, col, LAYOUT.rows, LAYOUT.cols)
        drawing.box(x + col * CELL, top + row * CELL, CELL - 2, CELL - 2, fill=fill, radius=3)
    centres = [(x + (col + 0.5) * CELL - 1, top + (row + 0.5) * CELL - 1) for row, col in turns]
    drawing.path(centres, colour="over", width=1)
    for turn, (across, down) in enumerate(centres):
        fill = patch_colour(*turns[turn], LAYOUT.rows, LAYOUT.cols)
        drawing.box(across - 9, down - 8, 18, 16, fill=fill, radius=6)
        drawing.text(across, down + 4, str(turn + 1), size=11.5, fill="dark-ink")
    for at, position in enumerate(order):
        text = not BEFORE <= position < BEFORE + LAYOUT.tokens
        fill = "text" if text else "ink"
        if position in place:
            fill = patch_colour(*place[position], LAYOUT.rows, LAYOUT.cols)
        drawing.box(x + at * STRIP, top + SIDE + 8, STRIP - 1, 16, fill=fill, radius=1.5)


def legend(drawing: Drawing, x: float, y: float) -> None:
    """Explain grid and strip."""
    words = "Numbers: turn of a patch. Strip: all positions in the order of reading;"
    drawing.text(x, y, words, size=12.5, fill="faint", anchor="start")
    for at, fill, word in ((456, "text", "text and"), (530, "ink", "class token keep their places.")):
        drawing.box(x + at, y - 12, STRIP, 16, fill=fill, radius=1.5)
        drawing.text(x + at + STRIP + 6, y, word, size=12.5, fill="faint", anchor="start")
