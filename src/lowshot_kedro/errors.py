"""The error for input that cannot be used."""


class InputError(ValueError):
    """A file, an array or a parameter that cannot be used, worded for whoever gave it.

    `kedro run` shows the message alone. Any other ValueError is a defect and keeps its traceback.
    """
