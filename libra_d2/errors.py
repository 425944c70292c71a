from .utils.messages import printable_lines


class UserError(ValueError):
    """
    A mistake in what the user gave: shown as one line, without a stack trace. Names in it may be
    other people's: control characters of theirs are escaped.
    """

    def __str__(self) -> str:
        return printable_lines(super().__str__())
