"""Errors of files, and text of foreign errors."""


class RecordError(ValueError):
    """Reason for which a record, or a part of it, is left out.

    Attributes:
        reason: the same for every record with this fault.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason, self.detail = reason, detail

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.reason, self.detail)


def first_line(error: BaseException) -> str:
    """First line of the message of an error, or the name of its class where it has none."""
    return str(error).strip().split("\n")[0] or type(error).__name__
