"""A retrieval task put to a model: everything is embedded once, and compared with everything."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mmrnn.data.image import ImageError
from mmrnn.evaluation.metrics.items import Scores
from mmrnn.evaluation.metrics.recall import NEVER, Retrieved, recall, retrieve
from mmrnn.evaluation.tasks.answer_lines import answer_line, resume
from mmrnn.evaluation.tasks.question import Question
from mmrnn.evaluation.tasks.results import TaskRun, write_results
from mmrnn.evaluation.tasks.retrieval_task import IMAGE_TO_TEXT, TEXT_TO_IMAGE, RetrievalTask
from mmrnn.evaluation.tasks.task import Task
from mmrnn.inference.assistant import Assistant
from mmrnn.inference.embedding import embed_prepared, embed_texts, prepare_image, require_embedder
from mmrnn.inference.fingerprint import state_facts
from mmrnn.io.lock import lock_folder
from mmrnn.types import Ranks

Found = list[tuple[int, Tensor | str]]
"""Numbers of images or captions with their vectors, or the reason why there are none."""


def run_retrieval(
    assistant: Assistant,
    task: RetrievalTask,
    run: TaskRun,
    *,
    ranks: Ranks,
    stopped: Callable[[], bool],
    track: Callable[[Iterable[int]], Iterable[int]],
) -> dict[str, Any] | None:
    """Embed all images and captions of a task, and write `answers.jsonl` and `result.json`; as `run_task`.

    Raises:
        FileNotFoundError: a file of the task is missing.
        FolderInUseError: another process works in the folder.
        ValueError: a record is damaged, the model embeds nothing, the run asks for replies or options, or the folder
            holds answers of other settings.
        DiskFullError: there is no space for an answer.
    """
    require_embedder(assistant.model)
    if run.rank or run.beams:
        raise ValueError(
            f"{run.name} compares vectors and generates no replies; leave out rank, num_beams and the like"
        )
    everything = task.questions(run.root, assistant.prompt)
    questions = everything[: run.max_questions or None]
    queries = task.queries(questions)
    settings = {**run.card, **state_facts(assistant.model, assistant.tokenizer)}
    embedding = _Embedding(assistant, questions, run.batch_size)
    with ExitStack() as stack:
        ranks.on_main(lambda: stack.enter_context(lock_folder(run.folder)))
        ranks.on_main(lambda: resume(run.folder, settings, queries))
        own = embedding.batches(ranks.rank, ranks.size)
        for _ in track(range(max(ranks.gather(embedding.count(ranks.rank, ranks.size))))):
            steps = ranks.gather((next(own, ([], [])), stopped()))
            if any(stop for _, stop in steps):
                return None
            ranks.on_main(partial(embedding.keep, [found for found, _ in steps]))
        asked = len(task.queries(everything))
        return ranks.on_main(lambda: _write(task, run, embedding, queries, settings, asked))


class _Embedding:
    """Vectors of the images and the captions of some questions."""

    def __init__(self, assistant: Assistant, questions: Sequence[Question], batch_size: int) -> None:
        self.reader, self.questions, self.batch_size = assistant.reader, questions, batch_size
        self.captions = [caption for one in questions for caption in one.truths]
        self.owners = [number for number, one in enumerate(questions) for _ in one.truths]
        self.images: dict[int, Tensor] = {}
        self.texts: dict[int, Tensor] = {}
        self.faults: dict[int, str] = {}

    def batches(self, rank: int, size: int) -> Iterator[tuple[Found, Found]]:
        """Yield what one of several ranks embeds, in batches: images, and captions."""
        for numbers in self._split(range(rank, len(self.questions), size)):
            yield self._embed_images(numbers), []
        for numbers in self._split(range(rank, len(self.captions), size)):
            vectors = embed_texts(self.reader, [self.captions[number] for number in numbers])
            yield [], [*zip(numbers, vectors, strict=True)]

    def count(self, rank: int, size: int) -> int:
        """Return the number of batches of one of several ranks."""
        every = (range(rank, len(group), size) for group in (self.questions, self.captions))
        return sum(len(self._split(numbers)) for numbers in every)

    def keep(self, found: Iterable[tuple[Found, Found]]) -> None:
        """Keep what the ranks have embedded."""
        for images, texts in found:
            self.faults |= {number: item for number, item in images if isinstance(item, str)}
            self.images |= {number: item for number, item in images if isinstance(item, Tensor)}
            self.texts |= dict(texts)

    def retrieve(self) -> tuple[Retrieved, Retrieved, list[int]]:
        """Return what images and captions find, and the numbers of the images that could be opened."""
        opened = sorted(self.images)
        places = {number: place for place, number in enumerate(opened)}
        owners = torch.tensor([places.get(number, -1) for number in self.owners])
        texts = torch.stack([self.texts[number] for number in range(len(self.captions))])
        return *retrieve(torch.stack([self.images[number] for number in opened]), texts, owners), opened

    def _split(self, numbers: range) -> list[range]:
        return [numbers[start : start + self.batch_size] for start in range(0, len(numbers), self.batch_size)]

    def _embed_images(self, numbers: range) -> Found:
        prepared, found = {}, []
        for number in numbers:
            [image] = self.questions[number].sample.images
            try:
                prepared[number] = prepare_image(self.reader, image)
            except ImageError as fault:
                found.append((number, fault.reason))
        if prepared:
            found += zip(prepared, embed_prepared(self.reader, [*prepared.values()]), strict=True)
        return found


def _write(
    task: RetrievalTask,
    run: TaskRun,
    embedding: _Embedding,
    queries: Sequence[Question],
    settings: dict[str, Any],
    asked: int,
) -> dict[str, Any]:
    """Score both directions, and write the answers of one of them and the result."""
    if not embedding.images:
        raise ValueError(f"no image of {run.name} can be opened ({embedding.faults[0]}); look into {run.root}")
    of_images, of_texts, opened = embedding.retrieve()
    faults = [embedding.faults.get(number, "") for number in range(len(embedding.questions))]
    image_ranks = torch.full((len(faults),), NEVER)
    image_ranks[opened] = of_images.ranks
    summary = {f"{TEXT_TO_IMAGE}/{name}": value for name, value in recall(of_texts.ranks).items()}
    summary |= {f"{IMAGE_TO_TEXT}/{name}": value for name, value in recall(image_ranks).items()}
    if task.main.startswith(IMAGE_TO_TEXT):
        ranks = image_ranks
        nearest = dict(zip(opened, of_images.nearest.tolist(), strict=True))
        replies = ["" if fault else embedding.captions[nearest[number]] for number, fault in enumerate(faults)]
    else:
        ranks, faults = of_texts.ranks, [faults[owner] for owner in embedding.owners]
        replies = [embedding.questions[opened[place]].image for place in of_texts.nearest.tolist()]
    right = ranks < int(task.main.partition("@")[2])
    scores = dict(zip((query.id for query in queries), right.double().tolist(), strict=True))
    lines = {
        query.id: answer_line(query, query.text, reply, run.model, fault)
        for query, reply, fault in zip(queries, replies, faults, strict=True)
    }
    scored = Task(reader=task.reader, metric=lambda _: Scores(scores, summary), main=task.main, source=task.source)
    return write_results(scored, run, queries, lines, settings, asked=asked, padding=None)
