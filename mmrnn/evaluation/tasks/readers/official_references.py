"""References of benchmarks in files of their own, beside LLaVA's question lines."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from mmrnn.evaluation.metrics.option_letter import LETTERS
from mmrnn.evaluation.tasks.readers.records import (
    at,
    check_kind,
    existing,
    get,
    get_id,
    images_in,
    listed,
    read_json,
    records,
)
from mmrnn.evaluation.tasks.readers.references import Lookup, Reference, References, find, first_line, put
from mmrnn.io.errors import RecordError


def letters(count: int, answer: Any) -> Reference:
    """Return the reference of a question whose options have letters.

    Args:
        count: of the options.
        answer: letter of the right one.

    Raises:
        RecordError: there is one option, or too many, or the answer is none of them.
    """
    if not 2 <= count <= len(LETTERS):
        raise RecordError(f"options must be 2 to {len(LETTERS)}", f"{count}")
    if answer not in tuple(LETTERS[:count]):
        raise RecordError(f"the answer must be one of {LETTERS[:count]}", f"{answer!r:.50}")
    return Reference(truths=(answer,), options=tuple(LETTERS[:count]))


class GQAAnswers(References):
    """GQA: an object of questions by id, each with an `answer`.

    Args:
        file: of the questions with their answers.
    """

    def __init__(self, *, file: str = "gqa/data/testdev_balanced_questions.json") -> None:
        self.file = file

    def open(self, root: Path) -> Lookup:
        """Read the file. See `References`."""
        path, table = existing(root, self.file), {}
        with at(str(path)):
            questions = check_kind(read_json(path), dict, "the file")
        for id, question in questions.items():
            with at(f"{path} {id!r}"):
                put(table, id, Reference(truths=(get(question, "answer", str),)))
        return lambda record, text: find(table, str(get_id(record, "question_id")), path)


class POPELabels(References):
    """POPE: a file of labels for each category, found by image and question; LLaVA's script pairs them by line.

    Args:
        file: of a category, with the field `{category}`.
        categories: whose files there are.
    """

    def __init__(
        self,
        *,
        file: str = "pope/coco/coco_pope_{category}.json",
        categories: tuple[str, ...] = ("random", "popular", "adversarial"),
    ) -> None:
        self.file, self.categories = file, tuple(categories)

    def open(self, root: Path) -> Lookup:
        """Read the files. See `References`."""
        table = {}
        for category in self.categories:
            for place, record in records(existing(root, self.file.format(category=category))):
                with at(place):
                    key = category, get(record, "image", str), _spelt(get(record, "text", str))
                    put(table, key, _yes_no(get(record, "label", str), ("yes", "no")))
        file = self.file.format(category="*")
        return lambda record, text: find(
            table, (get(record, "category", str), get(record, "image", str), _spelt(text)), file
        )


class MMEAnswers(References):
    """MME: a `.txt` for each image, a line of question, tab and answer for each of its two questions.

    They lie in the folder of the subtask, or in `questions_answers_YN` in it. A question is found whether it has
    "Please answer yes or no." or not.

    Args:
        folder: of the subtasks.
    """

    def __init__(self, *, folder: str = "MME/MME_Benchmark_release_version") -> None:
        self.folder = folder

    def open(self, root: Path) -> Lookup:
        """Return what reads the file of an image once it is asked about. See `References`."""
        folder = images_in(root, self.folder)

        @cache
        def answers(kind: str, name: str) -> dict[str, Reference]:
            inner = f"{kind}/questions_answers_YN"
            inner = inner if Path(folder.path(inner, "an answer")).is_dir() else kind
            path, table = root / self.folder / inner / f"{name}.txt", {}
            for number, line in enumerate(_read_lines(path), 1):
                with at(f"{path} line {number}"):
                    question, tab, answer = line.strip().partition("\t")
                    if tab:
                        put(table, _bare(question), _yes_no(answer.lower(), ("Yes", "No"), kind))
                    elif question:
                        raise RecordError("a line must be a question, a tab and an answer")
            return table

        def lookup(record: Mapping[str, Any], text: str) -> Reference:
            kind, *_, name = get(record, "question_id", str).split("/")
            folder.path(f"{kind}/{name}", "an answer")
            return find(answers(kind, name.split(".")[0]), _bare(text), f"{self.folder}/{kind}")

        return lookup


class TextVQAAnswers(References):
    """TextVQA: a list of questions with ten answers, found by image and question in lower case, as LLaVA's scorer does.

    Of questions about an image that are the same the last one counts, as there.

    Args:
        file: of the questions with their answers.
    """

    def __init__(self, *, file: str = "textvqa/TextVQA_0.5.1_val.json") -> None:
        self.file = file

    def open(self, root: Path) -> Lookup:
        """Read the file. See `References`."""
        path, table = existing(root, self.file), {}
        for place, question in listed(read_json(path), "data", path):
            with at(place):
                key = str(get_id(question, "image_id")), first_line(get(question, "question", str)).lower()
                answers = (check_kind(answer, str, "an answer") for answer in get(question, "answers", list))
                table[key] = Reference(truths=tuple(answers))
        return lambda record, text: find(table, (str(get_id(record, "question_id")), first_line(text).lower()), path)


class SEEDAnswers(References):
    """SEED-Bench: a list of questions with four choices, found by id; the kind is `image` or `video`.

    Args:
        file: of the questions with their answers.
    """

    def __init__(self, *, file: str = "seed_bench/SEED-Bench.json") -> None:
        self.file = file

    def open(self, root: Path) -> Lookup:
        """Read the file. See `References`."""
        path, table = existing(root, self.file), {}
        for place, question in listed(read_json(path), "questions", path):
            with at(place):
                id = get_id(question, "question_id")
                found = letters(sum(key.startswith("choice_") for key in question), question.get("answer"))
                kind = get(question, "data_type", str)
                put(table, str(id), replace(found, kind=kind, record={"official_id": id}))
        return lambda record, text: find(table, str(get_id(record, "question_id")), path)


class ScienceQAAnswers(References):
    """ScienceQA: an object of problems by id, and one of the ids of each split; the kind is `image` or `text`.

    Args:
        problems: file of the problems.
        splits: file of the ids.
        split: whose ids are asked.
    """

    def __init__(
        self,
        *,
        problems: str = "scienceqa/problems.json",
        splits: str = "scienceqa/pid_splits.json",
        split: str = "test",
    ) -> None:
        self.problems, self.splits, self.split = problems, splits, split

    def open(self, root: Path) -> Lookup:
        """Read the files. See `References`."""
        path, table = existing(root, self.problems), {}
        problems, splits = read_json(path), existing(root, self.splits)
        for place, id in listed(read_json(splits), self.split, splits):
            with at(f"{place}: {path}"):
                problem = get(problems, check_kind(id, str, "an id"), dict)
                answer = get(problem, "answer", int)
                put(table, id, letters(len(get(problem, "choices", list)), LETTERS[answer : answer + 1]))
        return lambda record, text: replace(
            find(table, str(get_id(record, "id")), path), kind="image" if record.get("image") else "text"
        )


def _spelt(question: str) -> str:
    """Return the first line of a question of POPE, whose first version, and so LLaVA's lines, wrote `imange`."""
    return first_line(question).replace("imange", "image")


def _yes_no(label: str, options: tuple[str, str], kind: str = "") -> Reference:
    if label not in ("yes", "no"):
        raise RecordError("a label must be yes or no", f"{label!r:.50}")
    return Reference(truths=(label,), options=options, kind=kind)


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise RecordError("a question has no reference", f"{path} is missing") from None
    except UnicodeDecodeError as error:
        raise RecordError("a file is not UTF-8", f"{path} byte {error.start}") from None


def _bare(question: str) -> str:
    """Return the first line of a question of MME without its request for yes or no."""
    return " ".join(first_line(question).replace("Please answer yes or no.", "").split())
