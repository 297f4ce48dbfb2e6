"""Section of a comparison: a table with its explanation, as HTML and as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Section:
    """A table and its explanation.

    Attributes:
        title: of the section.
        columns: of the table; none: there is no table.
        rows: of the table.
        notes: sentences below the table.
        more: HTML behind them, on the page alone.
    """

    title: str
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    notes: Sequence[str] = ()
    more: str = ""

    def html(self) -> str:
        """Return the section as HTML."""
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        table = html_table(self.columns, self.rows) if self.rows else ""
        return f"<h2>{escape(self.title)}</h2>{table}{notes}{self.more}"

    def markdown(self) -> str:
        """Return the section as Markdown."""
        notes = "".join(f"\n{' '.join(note.split())}\n" for note in self.notes)
        table = "\n" + markdown_table(self.columns, self.rows) if self.rows else ""
        return f"\n## {self.title}\n{table}{notes}"


def html_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as HTML."""
    head = "".join(f"<th>{escape(column)}" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}" for cell in row) for row in rows)
    return f"<table><tr>{head}{body}</table>"


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as Markdown."""
    cells = [[" ".join(cell.split()).replace("|", r"\|").replace("<", "&lt;") for cell in row] for row in rows]
    lines = [columns, ["---"] * len(columns), *cells]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
