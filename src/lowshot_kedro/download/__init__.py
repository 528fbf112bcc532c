"""Fetching the published files: which there are, and how an interrupted download goes on.

`lowshot download` or `lowshot-download` is the command; docs/reproduce.md tells how
to use it.
"""

from lowshot_kedro.download.published import (
    BASE_URL,
    GRAPH_SIZES,
    PUBLISHED_FILES,
    PublishedFile,
    select_files,
)
from lowshot_kedro.download.transfer import Remote, Transfer, look_up

__all__ = [
    "BASE_URL",
    "GRAPH_SIZES",
    "PUBLISHED_FILES",
    "PublishedFile",
    "Remote",
    "Transfer",
    "look_up",
    "select_files",
]
