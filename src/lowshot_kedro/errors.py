"""Errors that are shown to a person without a traceback."""

from click import ClickException


class UserError(ClickException, ValueError):
    """Something that the person at the keyboard can mend."""

    def __str__(self) -> str:
        return self.message
