"""Runs the project as a package: `python -m lowshot_kedro` is `kedro run`."""

import os
import sys
from pathlib import Path

_LOGGING_VARIABLE = "KEDRO_LOGGING_CONFIG"


def main() -> None:
    """Run the project with the command line's arguments."""
    # Read while Kedro is imported, and not from where --conf-source points.
    if not os.environ.get(_LOGGING_VARIABLE) and not Path("conf/logging.yml").is_file():
        os.environ[_LOGGING_VARIABLE] = str(Path(__file__).with_name("logging.yml"))
    from kedro.framework.cli.utils import find_run_command
    from kedro.framework.project import configure_project

    package_name = Path(__file__).parent.name
    configure_project(package_name)
    find_run_command(package_name)(sys.argv[1:])


if __name__ == "__main__":
    main()
