"""Samples that are dropped from a batch, and their reasons."""

from typing import NamedTuple


class DroppedSampleError(Exception):
    """Reason for which a sample is dropped.

    Attributes:
        reason: the same for every sample with this fault.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(detail or reason)
        self.reason = reason


class DroppedSample(NamedTuple):
    """A sample that is dropped.

    Attributes:
        id: of the sample.
        reason: the same for every sample with this fault.
        detail: the reason with what it says of this sample.
    """

    id: str
    reason: str
    detail: str
