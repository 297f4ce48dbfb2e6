"""Order in which questions are asked: an image is encoded once, and the questions of a batch have about one length."""

from collections.abc import Sequence
from dataclasses import dataclass

from mmrnn.data.collate import Collator
from mmrnn.evaluation.tasks.question import Question
from mmrnn.inference.feature_cache import feature_shape
from mmrnn.model.vlm import VLM
from mmrnn.types import ImageSource

FEATURE_BYTES = 4


@dataclass(frozen=True)
class Window:
    """Questions whose images are encoded together.

    Attributes:
        images: each once; none: they are opened and encoded with every batch.
        batches: of the questions, by length.
        positions: of all questions.
        padded: positions of all batches, padding included.
    """

    images: tuple[ImageSource, ...]
    batches: tuple[tuple[Question, ...], ...]
    positions: int
    padded: int


def make_plan(
    questions: Sequence[Question], collator: Collator, *, batch_size: int, max_images: int | None
) -> list[Window]:
    """Return the windows of some questions.

    Args:
        questions: to be asked.
        collator: for generation, without features.
        batch_size: questions that are asked at once.
        max_images: images whose features fit into memory, at least one; None: none are kept.

    Raises:
        ValueError: the prompt cannot format a question.
    """
    groups: dict[tuple[str, ...], list[Question]] = {}
    for question in questions:
        groups.setdefault(tuple(image.key for image in question.sample.images), []).append(question)
    windows: list[tuple[list[Question], dict[str, ImageSource]]] = []
    for group in groups.values():
        own = {image.key: image for image in group[0].sample.images}
        if not windows or (max_images and len(windows[-1][1]) + len(own.keys() - windows[-1][1].keys()) > max_images):
            windows.append(([], {}))
        together, images = windows[-1]
        together += group
        images |= own
    kept = max_images is not None
    return [_window(together, images if kept else {}, collator, batch_size) for together, images in windows]


def images_in_memory(model: VLM, gib: float) -> int | None:
    """Return the number of images whose features fit into so much memory.

    None: features are not kept, since images differ in size, the encoder has no parameters, or not one image fits.
    """
    modality = model.modalities["image"]
    if modality.image.variable_size or not any(True for _ in modality.encoder.parameters()):
        return None
    tokens, width = feature_shape(modality.encoder)
    return int(gib * 2**30 / (FEATURE_BYTES * tokens * width)) or None


def _window(questions: list[Question], images: dict[str, ImageSource], collator: Collator, batch_size: int) -> Window:
    lengths = {question.id: collator.length(question.sample) for question in questions}
    ordered = sorted(questions, key=lambda question: lengths[question.id])
    batches = [tuple(ordered[start : start + batch_size]) for start in range(0, len(ordered), batch_size)]
    padded = sum(len(batch) * lengths[batch[-1].id] for batch in batches)
    return Window(tuple(images.values()), tuple(batches), sum(lengths.values()), padded)
