from .utils.messages import printable_lines


class UserError(ValueError):
    """
    A mistake of the user, which commands show as one line without a stack trace.

    The message may contain names from files of other people, so control characters are escaped.
    """

    def __str__(self) -> str:
        return printable_lines(super().__str__())
