"""Drawing of the data flow, from images and text to the loss or the reply.

The names of the parts are those of their contracts, the shapes those of the annotations.
"""

from drawings.patches import patch_colour
from drawings.svg import Drawing
from mmrnn.types import (
    Backbone,
    Connector,
    Encoder,
    Layout,
    Objective,
    Output,
    Prompt,
    Scan,
    Sequence,
    State,
    Tokenizer,
)

WIDTH, HEIGHT = 1088, 428
TOP, MIDDLE, LOW = 96, 170, 244
"""Heights of the path of an image, of what follows the splice, and of the path of a text."""

GRID = Layout(rows=4, cols=4)
CELL, STRIP = 15, 22


def shape(annotation: type) -> str:
    """Axes of a tensor by its annotation."""
    return annotation.dim_str.replace("*b", "b t")


def data_flow() -> str:
    """Return the drawing as SVG."""
    drawing = Drawing(
        WIDTH,
        HEIGHT,
        "Data flow of a vision-language model",
        "An image passes the encoder and the connector and becomes visual tokens. A text passes prompt and tokenizer "
        "and becomes ids with slots, then embeddings. The splice writes the visual tokens into the slots. The backbone "
        "reads the sequence with a scan, continues from a state and returns the next one. The head makes logits of "
        "its hidden states, from which the objective computes the loss, or generation takes the next token.",
    )
    image_path(drawing)
    text_path(drawing)
    splice(drawing)
    backbone(drawing)
    ends(drawing)
    strip(drawing)
    return str(drawing)


def part(drawing: Drawing, x: float, y: float, w: float, *names: str, h: float = 44) -> None:
    """Draw a part around a centre; it has a name, or several that stand in it."""
    drawing.box(x - w / 2, y - h / 2, w, h, fill="part", edge="edge", radius=7)
    for line, name in enumerate(names):
        drawing.text(x, y + 5 + 18 * (line - (len(names) - 1) / 2), name, size=15.2, style="bold")


def flow(drawing: Drawing, y: float, start: float, stop: float, label: str) -> None:
    """Draw an arrow to the right with a shape above it."""
    drawing.arrow([(start, y), (stop, y)])
    drawing.text((start + stop) / 2 - 2, y - 8, label, size=14.5, style="code")


def image_path(drawing: Drawing) -> None:
    """Image, encoder, connector."""
    for row in range(GRID.rows):
        for col in range(GRID.cols):
            place = 34 + col * CELL, TOP - 2 * CELL + row * CELL
            drawing.box(*place, CELL - 1, CELL - 1, fill=patch_colour(row, col, GRID.rows, GRID.cols), radius=1)
    drawing.text(34 + 2 * CELL, TOP - 2 * CELL - 10, "images", size=12.8, fill="faint")
    pixels, features = Encoder.__call__.__annotations__["images"], Encoder.__call__.__annotations__["return"]
    flow(drawing, TOP, 100, 192, shape(pixels))
    part(drawing, 246, TOP, 104, Encoder.__name__)
    flow(drawing, TOP, 300, 366, shape(features))
    part(drawing, 420, TOP, 104, Connector.__name__)
    drawing.arrow([(474, TOP), (560, TOP)])
    drawing.text(514, TOP - 8, shape(Connector.__call__.__annotations__["return"]), size=14.5, style="code")


def text_path(drawing: Drawing) -> None:
    """Text, prompt and tokenizer, embedding."""
    drawing.box(18, LOW - 24, 92, 48, fill="back", edge="faint", radius=10)
    drawing.text(64, LOW - 5, "<image>", size=14.5, style="code")
    drawing.text(64, LOW + 13, "what is it?", size=13.5)
    drawing.text(64, LOW + 42, "text", size=12.8, fill="faint")
    drawing.arrow([(110, LOW), (192, LOW)])
    part(drawing, 246, LOW, 104, Prompt.__name__, Tokenizer.__name__, h=54)
    flow(drawing, LOW, 300, 366, shape(Sequence.__annotations__["ids"]))
    drawing.text(333, LOW + 19, "with slots", size=12.8, fill="faint")
    part(drawing, 420, LOW, 104, "Embedding")
    flow(drawing, LOW, 474, 560, shape(Backbone.embed.__annotations__["return"]))


def splice(drawing: Drawing) -> None:
    """Visual tokens into the slots of the text."""
    drawing.box(562, TOP - 26, 66, LOW - TOP + 52, fill="part", edge="edge", radius=7)
    drawing.text(595, MIDDLE + 5, "splice", size=15.2, style="bold")
    drawing.arrow([(628, MIDDLE), (716, MIDDLE)])
    drawing.text(669, MIDDLE - 8, Sequence.__name__, size=13.8, style="bold")
    drawing.text(669, MIDDLE + 19, shape(Backbone.embed.__annotations__["return"]), size=14.5, style="code")


def backbone(drawing: Drawing) -> None:
    """Backbone with its scan, and the state that it continues from and returns."""
    part(drawing, 776, MIDDLE, 116, Backbone.__name__, h=64)
    drawing.text(776, TOP - 56, State.__name__, size=15.2, style="bold")
    drawing.text(776, TOP - 40, "of all positions read", size=12.8, fill="faint")
    drawing.arrow([(744, TOP - 28), (744, MIDDLE - 33)])
    drawing.arrow([(808, MIDDLE - 33), (808, TOP - 28)])
    drawing.text(738, TOP + 10, "continue", size=12.8, fill="faint", anchor="end")
    drawing.text(814, TOP + 10, "next", size=12.8, fill="faint", anchor="start")
    part(drawing, 776, LOW + 20, 116, Scan.__name__, h=32)
    drawing.arrow([(776, LOW + 4), (776, MIDDLE + 33)])
    drawing.text(776, LOW + 52, "order of patches in a block", size=12.8, fill="faint")


def ends(drawing: Drawing) -> None:
    """Head, objective and generation."""
    hidden = Output.__annotations__["hidden"].__args__[0]
    flow(drawing, MIDDLE, 834, 892, shape(hidden))
    drawing.text(861, MIDDLE + 19, "hidden", size=12.8, fill="faint")
    part(drawing, 919, MIDDLE, 54, "head")
    drawing.text(925, MIDDLE - 34, "logits", size=12.8, fill="faint", anchor="end")
    for y, names, result in ((TOP - 18, (Objective.__name__,), "loss"), (LOW + 20, ("generate",), "reply")):
        drawing.arrow([(946, MIDDLE), (962, MIDDLE), (962, y), (976, y)])
        part(drawing, 1024, y, 92, *names, h=40)
        away = -1 if y < MIDDLE else 1
        drawing.arrow([(1024, y + away * 20), (1024, y + away * 44)])
        drawing.text(1024, y + away * 54 + 4, result, size=15.2, style="bold")


def strip(drawing: Drawing) -> None:
    """Positions of a row: text, and the visual tokens in its slots."""
    words = ["User:", *[""] * GRID.tokens, "what", "is", "it", "?", "Assistant:"]
    y, x = HEIGHT - 64, 34
    drawing.path([(595, LOW + 26), (595, y - 12)], colour="faint", width=1.2, dashes="3 4")
    drawing.text(
        x, y - 12, f"{Sequence.__name__}: one row, visual tokens in the slots of the text", size=14.5, anchor="start"
    )
    for index, word in enumerate(words):
        width = STRIP if not word else 16 + 8 * len(word)
        visual = 0 < index <= GRID.tokens
        fill = patch_colour(*divmod(index - 1, GRID.cols), GRID.rows, GRID.cols) if visual else "text"
        drawing.box(x, y, width - 2, 28, fill=fill, radius=3)
        drawing.text(x + width / 2 - 1, y + 18, word, size=13)
        x += width
    letters = "m images, b rows, t positions, n encoder tokens of width e, v visual tokens of width d"
    drawing.text(34, HEIGHT - 14, letters, size=12.8, fill="faint", anchor="start")
