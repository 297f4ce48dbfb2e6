"""Benchmarks as tasks: questions in official files, asked and scored by the rule of the papers."""

from mmrnn.evaluation.tasks.question import Question, QuestionReader
from mmrnn.evaluation.tasks.retrieval_task import RetrievalTask
from mmrnn.evaluation.tasks.task import Submission, Task

__all__ = ["Question", "QuestionReader", "RetrievalTask", "Submission", "Task"]
