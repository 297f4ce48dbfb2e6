"""Benchmarks as tasks: questions in official files, asked and scored by the rule of the papers."""

from mmrnn.evaluation.metrics.items import Metric
from mmrnn.evaluation.tasks.question import Question, QuestionReader
from mmrnn.evaluation.tasks.question_lines import QuestionLines
from mmrnn.evaluation.tasks.references import GQAAnswers, OwnAnswers, POPELabels, Reference, References
from mmrnn.evaluation.tasks.task import Submission, Task

__all__ = [
    "GQAAnswers",
    "Metric",
    "OwnAnswers",
    "POPELabels",
    "Question",
    "QuestionLines",
    "QuestionReader",
    "Reference",
    "References",
    "Submission",
    "Task",
]
