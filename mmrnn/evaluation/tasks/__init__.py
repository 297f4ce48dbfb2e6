"""Benchmarks as tasks: questions in official files, asked and scored by the rule of the papers."""

from mmrnn.evaluation.tasks.question import Question, QuestionReader
from mmrnn.evaluation.tasks.task import Metric, Submission, Task

__all__ = ["Metric", "Question", "QuestionReader", "Submission", "Task"]
