"""Prompts of the engine: a whole dialogue as training writes it, and where other prompts leave it."""

from collections.abc import Sequence
from dataclasses import dataclass

from mmrnn.data.collate import IMAGE, Collator
from mmrnn.inference.dialogue import PLACEHOLDER, DialogueRow, other_question, without_reply
from mmrnn.inference.reader import DialogueReader, cut_between_images
from mmrnn.inference.text_stream import common_length
from mmrnn.prompts import tokenize
from mmrnn.types import Sample, Turn


@dataclass(frozen=True)
class PreparedPrompt:
    """A dialogue ready to be read.

    Attributes:
        row: of the dialogue; its images are opened and prepared.
        resume_points: positions up to which another question about the same images, or the next turn of the dialogue,
            begins alike; ascending.
    """

    row: DialogueRow
    resume_points: tuple[int, ...]


def prepare(reader: DialogueReader, sample: Sample) -> PreparedPrompt:
    """Return the prompt of a dialogue that ends with a question; a reply to it is removed. Any thread may call it.

    Raises:
        ImageError: an image cannot be opened.
        ValueError: the sample asks nothing, tags and images differ in number, or the prompt cannot format the turns.
    """
    sample = without_reply(sample)
    row = reader.sample_row(sample)
    return PreparedPrompt(row, _resume_points(reader.collator(), sample, row) if reader.causal else ())


def _resume_points(collator: Collator, sample: Sample, row: DialogueRow) -> tuple[int, ...]:
    *before, asked, _ = sample.turns
    other = Turn("user", other_question(asked.text))
    later = (asked, Turn("assistant", PLACEHOLDER), Turn("user", PLACEHOLDER))
    found, length = set(), len(row.ids)
    # A question that is the same word for word begins with all but the last position, of which the logits are needed.
    for turns, most in (((*before, other), length - 1), ((*before, *later), length)):
        try:
            ids = _ids(collator, sample, (*turns, Turn("assistant", "")), row)
        except ValueError:  # the prompt has no such turns
            continue
        found.add(cut_between_images(row, min(common_length(row.ids, ids), most)))
    return tuple(sorted(found - {0}))


def _ids(collator: Collator, sample: Sample, turns: Sequence[Turn], row: DialogueRow) -> list[int]:
    """Ids of other turns about the images of a sample."""
    other = Sample(tuple(turns), sample.images, observations=sample.observations)
    layouts = [span.layout for span in row.spans]
    return tokenize(collator.spans(other), collator.tokenizer, layouts, modality=IMAGE).ids
