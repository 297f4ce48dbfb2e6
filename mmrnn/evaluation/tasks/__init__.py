"""Benchmarks as tasks: questions in official files, asked and scored by the rule of the papers."""

from mmrnn.evaluation.metrics.items import Metric
from mmrnn.evaluation.tasks.coco_captions import CocoCaptions
from mmrnn.evaluation.tasks.official_references import (
    GQAAnswers,
    MMEAnswers,
    POPELabels,
    ScienceQAAnswers,
    SEEDAnswers,
    TextVQAAnswers,
)
from mmrnn.evaluation.tasks.option_table import OptionTable
from mmrnn.evaluation.tasks.question import Question, QuestionReader
from mmrnn.evaluation.tasks.question_lines import QuestionLines
from mmrnn.evaluation.tasks.references import OwnAnswers, Reference, References
from mmrnn.evaluation.tasks.referring_expressions import ReferringExpressions
from mmrnn.evaluation.tasks.task import Submission, Task
from mmrnn.evaluation.tasks.vqa_annotations import VQAAnnotations

__all__ = [
    "CocoCaptions",
    "GQAAnswers",
    "MMEAnswers",
    "Metric",
    "OptionTable",
    "OwnAnswers",
    "POPELabels",
    "Question",
    "QuestionLines",
    "QuestionReader",
    "Reference",
    "References",
    "ReferringExpressions",
    "SEEDAnswers",
    "ScienceQAAnswers",
    "Submission",
    "Task",
    "TextVQAAnswers",
    "VQAAnnotations",
]
