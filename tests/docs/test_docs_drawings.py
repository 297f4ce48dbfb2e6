"""The drawings of the documentation are those that the code makes now; each can be read without seeing it."""

from xml.etree import ElementTree

import docs_drawings
import docs_headline
import pytest
from drawings import scan_orders
from drawings.svg import DARK, LIGHT, Drawing

SVG = "{http://www.w3.org/2000/svg}"
MADE = {name: draw() for name, draw in docs_drawings.DRAWINGS.items()}
MADE["headline.svg"] = docs_headline.chart(docs_headline.stored())


@pytest.mark.parametrize("name", MADE)
def test_a_drawing_is_that_of_the_code(name):
    stored = (docs_drawings.IMAGES / name).read_text(encoding="utf-8")
    assert stored == MADE[name], "run tools/docs_drawings.py and tools/docs_headline.py"


@pytest.mark.parametrize("name", MADE)
def test_a_drawing_has_a_title_and_loads_nothing(name):
    root = ElementTree.fromstring(MADE[name])
    assert root.get("role") == "img"
    labels = [
        root.find(f"{SVG}{tag}[@id='{tag_id}']").text for tag, tag_id in (("title", "title"), ("desc", "description"))
    ]
    assert root.get("aria-labelledby").split() == ["title", "description"]
    assert all(len(label) > 20 for label in labels)
    assert not [word for word in ("url(", "href", "@import", "@font-face") if word in MADE[name]]
    assert "http" not in MADE[name].replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize("name", MADE)
def test_every_element_lies_in_the_drawing(name):
    root = ElementTree.fromstring(MADE[name])
    _, _, width, height = map(float, root.get("viewBox").split())
    for one in root.iter():
        for x in ("x", "cx"):
            assert 0 <= float(one.get(x, 0)) <= width, one.attrib
        for y in ("y", "cy"):
            assert 0 <= float(one.get(y, 0)) <= height, one.attrib
        assert float(one.get("x", 0)) + float(one.get("width", 0)) <= width or one is root


def test_every_colour_has_a_light_and_a_dark_version():
    assert LIGHT.keys() == DARK.keys()
    text = str(Drawing(9, 9, "a", "b"))
    light, dark = text.split("@media (prefers-color-scheme:dark)")
    for name in LIGHT:
        assert f".{name}{{fill:{LIGHT[name]}}}" in light
        assert f".{name}{{fill:{DARK[name]}}}" in dark


def test_the_panels_are_the_orders_of_the_scans():
    orders = {name: scan_orders.orders(scan) for name, scan in scan_orders.scans().items()}
    assert {name: len(panels) for name, panels in orders.items()} == {
        "bidirectional": 2,
        "forward": 1,
        "multidirectional": 4,
        "snake": 1,
        "spiral": 1,
        "zigzag": 1,
    }
    place = {scan_orders.BEFORE + n for n in scan_orders.LAYOUT.patch_indices().tolist()}
    for order in (order for panels in orders.values() for order in panels):
        assert sorted(order) == [*range(scan_orders.PANEL)]
        assert all(position == at for at, position in enumerate(order) if at not in place), "text and class token stay"
    down = [position - scan_orders.BEFORE for position in orders["multidirectional"][2] if position in place]
    assert down[:5] == [0, 4, 8, 12, 1]


def test_what_a_drawing_says_is_escaped():
    drawing = Drawing(9, 9, "<t>", "&")
    drawing.text(1, 1, "<image>")
    assert [one.text for one in ElementTree.fromstring(str(drawing)).iter(f"{SVG}text")] == ["<image>"]
