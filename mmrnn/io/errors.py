"""Text of foreign errors."""


def first_line(error: BaseException) -> str:
    """First line of the message of an error, or the name of its class where it has none."""
    return str(error).strip().split("\n")[0] or type(error).__name__
