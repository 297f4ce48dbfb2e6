"""Error of a training run."""


class TrainingError(RuntimeError):
    """Training cannot continue; the message says why and what to change."""
