"""The methods that are compared over episodes.

Each has a file, with a class that follows
:class:`~lowshot_kedro.episodes.methods.method.EpisodeMethod`. A new one is such a file and a line in
:data:`METHODS`.
"""

from __future__ import annotations

from lowshot_kedro.episodes.methods.method import EpisodeMethod, MethodOptions

# By name, in the order of tables.
METHODS: dict[str, type[EpisodeMethod]] = {}

__all__ = ["METHODS", "EpisodeMethod", "MethodOptions"]
