"""Runs the project as a package: `python -m lowshot_kedro` is `kedro run`."""

import os
import sys
from pathlib import Path

from lowshot_kedro.extras import MissingLibraryError
from lowshot_kedro.project import require_libraries
from lowshot_kedro.project.template import settings_folder

_LOGGING_VARIABLE = "KEDRO_LOGGING_CONFIG"


def main() -> None:
    """Run the project with the command line's arguments."""
    try:
        require_libraries("python -m lowshot_kedro")
    except MissingLibraryError as error:
        sys.exit(f"Error: {error}")
    # Read while Kedro is imported, and not from where --conf-source points.
    if not os.environ.get(_LOGGING_VARIABLE) and not Path("conf/logging.yml").is_file():
        os.environ[_LOGGING_VARIABLE] = str(settings_folder() / "logging.yml")
    from kedro.framework.cli.utils import find_run_command
    from kedro.framework.project import configure_project

    package_name = Path(__file__).parent.name
    configure_project(package_name)
    find_run_command(package_name)(sys.argv[1:])


if __name__ == "__main__":
    main()
