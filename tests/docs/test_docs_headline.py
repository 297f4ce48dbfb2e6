"""The figures of `mmrnn bench headline`: stored once, and shown in tables and a chart of the documentation."""

import json
from dataclasses import asdict
from xml.etree import ElementTree

import docs_headline
import pytest
from docs_headline import BASE, Figures

from mmrnn.bench.timing import Row


def bench(*rows, quick=False):
    return {"quick": quick, "rows": [asdict(row) for row in rows]}


def rows(name, context, seconds, prompt, ratio=None):
    speedup = {} if ratio is None else {BASE: ratio}
    return (
        Row("headline", "first", name, prompt, speedup, context=context),
        Row("headline", "a token", name, seconds, speedup, megabytes=25.4, context=context),
    )


def test_the_page_has_the_tables_of_the_stored_figures():
    page = docs_headline.PAGE.read_text(encoding="utf-8")
    assert docs_headline.with_tables(page, docs_headline.stored()) == page, "run tools/docs_headline.py"


def test_measured_rows_are_stored_as_they_are_printed():
    computed = Row("headline", "computed: h100", BASE, 0.1, {}, megabytes=1.0, computed=True)
    other = Row("decode", "a token", BASE, 0.1, {}, megabytes=1.0, context=1024)
    measured = [*rows(BASE, 1024, 0.00894, 0.2345), *rows("VisualRWKV-6", 1024, 0.0027, 14.6, 15.2)]
    found = docs_headline.measured(bench(*measured, computed, other))
    assert found == [
        Figures(1024, BASE, "8.9", "25", "", "0.23", ""),
        Figures(1024, "VisualRWKV-6", "2.7", "25", "15", "14.6", "15"),
    ]


@pytest.mark.parametrize("given", [bench(*rows(BASE, 1024, 1.0, 1.0), quick=True), bench()])
def test_figures_that_mean_nothing_are_refused(given):
    with pytest.raises(ValueError, match="without --quick"):
        docs_headline.measured(given)


def test_stored_figures_are_read_back(tmp_path, monkeypatch):
    before = docs_headline.stored()
    for name, text in (("STORED", ""), ("CHART", ""), ("PAGE", docs_headline.PAGE.read_text(encoding="utf-8"))):
        monkeypatch.setattr(docs_headline, name, tmp_path / name)
        (tmp_path / name).write_text(text)
    docs_headline.store(before)
    assert docs_headline.stored() == before
    (tmp_path / "bench.json").write_text(
        json.dumps(bench(*rows(BASE, 2048, 0.5, 2.0), *rows("a", 2048, 0.25, 1.0, 2.0)))
    )
    docs_headline.main([str(tmp_path / "bench.json")])
    assert "| 2,048 | 500 ms, 25 MB | 250 ms, 25 MB | 2.0 |" in (tmp_path / "PAGE").read_text(encoding="utf-8")
    assert "500 ms and 25 MB after 2,048" in (tmp_path / "CHART").read_text(encoding="utf-8")


def test_a_marker_for_every_stored_figure():
    found = docs_headline.stored()
    tags = [one.tag.rpartition("}")[2] for one in ElementTree.fromstring(docs_headline.chart(found)).iter()]
    of_base = sum(one.model == BASE for one in found)
    assert tags.count("circle") == 2 * of_base + 1  # two charts, and the legend
