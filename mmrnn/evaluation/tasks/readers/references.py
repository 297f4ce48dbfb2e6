"""References of question lines: the contract, and those in the lines themselves."""

from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mmrnn.evaluation.tasks.readers.records import check_kind, get
from mmrnn.io.errors import RecordError


@dataclass(frozen=True, kw_only=True)
class Reference:
    """References of one question, and what comes with them.

    Attributes:
        truths: references, at least one.
        options: replies from which one is chosen; none: it may be any.
        kind: category of the question; "": that of its record.
        record: further fields for a submission.
    """

    truths: tuple[str, ...]
    options: tuple[str, ...] = ()
    kind: str = ""
    record: Mapping[str, Any] = field(default_factory=dict)


Lookup = Callable[[Mapping[str, Any], str], Reference]
"""Record and text of a question to its reference; raises `RecordError` where there is none."""


@runtime_checkable
class References(Protocol):
    """References of a benchmark."""

    @abstractmethod
    def open(self, root: Path) -> Lookup:
        """Read the files once, and return what finds the reference of a question.

        Raises:
            FileNotFoundError: a file is missing.
            RecordError: a file is damaged.
        """


def first_line(text: str) -> str:
    """Return the first line of a question: the others say how to answer."""
    return text.split("\n")[0].strip()


def put(table: dict[Hashable, Reference], key: Hashable, reference: Reference) -> None:
    """Add a reference to a table.

    Raises:
        RecordError: the table has another one of this key.
    """
    if table.setdefault(key, reference) != reference:
        raise RecordError("a question has two references", repr(key))


def find(table: Mapping[Hashable, Reference], key: Hashable, file: object) -> Reference:
    """Return an entry of a table.

    Raises:
        RecordError: there is none.
    """
    if key not in table:
        raise RecordError("a question has no reference", f"{key!r} is not in {file}")
    return table[key]


class OwnAnswers(References):
    """References in the records: `answer` (text), `answers` (a list of texts, or of objects with an `answer` each), or
    the reply of a conversation; `options` is a list of texts.
    """

    def open(self, root: Path) -> Lookup:
        """Return what reads a record. See `References`."""
        return self._read

    def _read(self, record: Mapping[str, Any], text: str) -> Reference:
        if "answers" in record:
            given = get(record, "answers", list)
            truths = [get(one, "answer", str) if isinstance(one, dict) else one for one in given]
        elif "answer" in record or "conversations" not in record:
            truths = [get(record, "answer", str)]
        else:
            truths = [get(turn, "value", str) for turn in get(record, "conversations", list)[1:]]
        if not truths:
            raise RecordError("a question has no reference", "answers is empty, or a conversation has no reply")
        options = get(record, "options", list) if "options" in record else []
        for name, texts in (("an answer", truths), ("an option", options)):
            for one in texts:
                check_kind(one, str, name)
        if len(options) == 1 or (options and not set(truths) & set(options)):
            raise RecordError("options must be two or more, an answer among them", f"{options!r:.80}")
        return Reference(truths=tuple(truths), options=tuple(options))
