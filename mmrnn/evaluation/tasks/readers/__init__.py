"""Readers of questions and references in official files; a reader is one class, a `QuestionReader`."""

from mmrnn.evaluation.tasks.readers.coco_captions import CocoCaptions
from mmrnn.evaluation.tasks.readers.official_references import (
    GQAAnswers,
    MMEAnswers,
    POPELabels,
    ScienceQAAnswers,
    SEEDAnswers,
    TextVQAAnswers,
)
from mmrnn.evaluation.tasks.readers.option_table import OptionTable
from mmrnn.evaluation.tasks.readers.question_lines import QuestionLines
from mmrnn.evaluation.tasks.readers.references import OwnAnswers, Reference, References
from mmrnn.evaluation.tasks.readers.referring_expressions import ReferringExpressions
from mmrnn.evaluation.tasks.readers.vqa_annotations import VQAAnnotations

__all__ = [
    "CocoCaptions",
    "GQAAnswers",
    "MMEAnswers",
    "OptionTable",
    "OwnAnswers",
    "POPELabels",
    "QuestionLines",
    "Reference",
    "References",
    "ReferringExpressions",
    "SEEDAnswers",
    "ScienceQAAnswers",
    "TextVQAAnswers",
    "VQAAnnotations",
]
