"""tools/docs_site.py gathers every page, and rewrites the links between them."""

import re
from pathlib import PurePosixPath

import docs_site
import pytest


@pytest.fixture(scope="module")
def pages():
    return dict(docs_site.pages())


def test_every_link_leads_to_a_page(pages):
    for name, text in pages.items():
        for link in docs_site.LINK.findall(docs_site.CODE.sub("", text)):
            parts = [*PurePosixPath(name).parent.parts, *PurePosixPath(link).parts]
            while ".." in parts:
                at = parts.index("..")
                del parts[at - 1 : at + 1]
            place = "/".join(parts)
            assert place in pages or (docs_site.ROOT / "docs" / place).is_file(), f"{name}: {link}"


def test_every_page_of_the_navigation_is_there(pages):
    named = re.findall(r'= "([\w/]+\.md)"', (docs_site.ROOT / "zensical.toml").read_text(encoding="utf-8"))
    assert set(named) <= set(pages)
    assert {name for name in pages if "/" not in name} <= set(named), "a page that nobody finds"


def test_a_link_in_code_is_left_alone():
    text = "[a](../README.md#start) `[b](../README.md)` [c](https://a.b/c) [d](#e) [f](state.md)"
    expected = "[a](index.md#start) `[b](../README.md)` [c](https://a.b/c) [d](#e) [f](state.md)"
    assert docs_site.rewritten(text, "docs/data.md") == expected
    assert docs_site.rewritten("[a](../../../docs/kernels.md)", "kernels/mmrnn_kernels/wkv6/README.md") == (
        "[a](../kernels.md)"
    )


def test_a_file_without_a_page_is_named():
    with pytest.raises(ValueError, match=r"mmrnn/cli/main.py has no page"):
        docs_site.rewritten("[a](../mmrnn/cli/main.py)", "docs/data.md")


def test_every_public_name_is_described(pages):
    for package in docs_site.PACKAGES:
        assert f"[`{package}`]({package}.md)" in pages["api/index.md"]
        assert pages[f"api/{package}.md"].count("\n::: ") >= 3


def test_every_image_is_shown_on_a_page_and_small(pages):
    shown = "\n".join(pages.values())
    for path in (docs_site.ROOT / "docs" / "images").iterdir():
        assert f"images/{path.name})" in shown, path.name
        assert path.stat().st_size < 100_000, path.name


def test_every_image_says_what_it_shows(pages):
    for name, text in pages.items():
        assert not re.search(r"!\[.{0,9}\]\(", text), name
