class UserError(ValueError):
    """A mistake in what the user gave: shown as one line, without a stack trace."""
