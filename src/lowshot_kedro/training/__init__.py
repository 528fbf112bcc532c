"""What every trainer of this project shares: epochs, schedules, checkpoints, processes.

A trainer brings a network, an :class:`~lowshot_kedro.training.loop.Objective` and, if it likes, an
evaluation; :func:`~lowshot_kedro.training.loop.train` does the rest, in one process or several.
`snca/training.py` is an example of a page.
"""
