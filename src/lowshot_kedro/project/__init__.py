"""The Kedro side of the project: settings that are read, hooks around every run, advice to people.

`settings.py` and `pipeline_registry.py`, which Kedro looks for beside this package, name what is
here.
"""

from lowshot_kedro.extras import require

# As the project's pyproject.toml and Kedro know it.
PACKAGE = __name__.partition(".")[0]


def require_libraries(command: str) -> None:
    """Refuse a command before it ends in a traceback of imports.

    Raises:
        MissingLibraryError: For a library without which there are no pipelines.
    """
    for library in ("kedro", "kedro_datasets", "h5py", "matplotlib", "pandas", "PIL", "rich"):
        require(library, command)
