"""The files that a project of one's own begins with.

Most of them are this repository's own, which setup.py puts into the wheel; `new_project` holds the
others. This module needs Python alone, since setup.py runs it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

_NEW_PROJECT = Path(__file__).with_name("new_project")
_REPOSITORY = Path(__file__).parents[3]
_OF_THE_REPOSITORY = ("conf/*", "data/*/.gitkeep", "docs/*.md", "notebooks/*.ipynb")
# A person's own settings, which are nobody else's.
_OWN_SETTINGS = "conf/local"


def settings_folder() -> Path:
    """The folder `conf` that came with the package."""
    packaged = _NEW_PROJECT / "conf"
    return packaged if packaged.is_dir() else _REPOSITORY / "conf"


def write_project(folder: Path) -> None:
    """Write everything into a folder, which is made if need be."""
    shutil.copytree(_NEW_PROJECT, folder, dirs_exist_ok=True, copy_function=shutil.copyfile)
    if not (_NEW_PROJECT / "conf").is_dir():
        copy_from_repository(_REPOSITORY, folder)
    # Names with a dot in front are left out of packages.
    (folder / "gitignore").rename(folder / ".gitignore")
    (folder / ".telemetry").write_text("consent: false\n")


def copy_from_repository(repository: Path, folder: Path) -> None:
    """Copy what a project of one's own shares with the repository.

    Args:
        repository: Its folder.
        folder: The folder of the copies.
    """
    for pattern in _OF_THE_REPOSITORY:
        for path in repository.glob(pattern):
            name = path.relative_to(repository)
            target = folder / name
            if name.as_posix() == _OWN_SETTINGS:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, target, copy_function=shutil.copyfile)
            else:
                shutil.copyfile(path, target)
    own = folder / _OWN_SETTINGS
    own.mkdir(parents=True)
    (own / ".gitkeep").touch()
