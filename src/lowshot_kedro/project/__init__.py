"""The Kedro side of the project: settings that are read, hooks around every run, advice to people.

`settings.py` and `pipeline_registry.py`, which Kedro looks for beside this package, name what is
here.
"""

# As the project's pyproject.toml and Kedro know it.
PACKAGE = __name__.partition(".")[0]
