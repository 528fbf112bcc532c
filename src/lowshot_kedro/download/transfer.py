"""Fetching a file over HTTP, so that whatever stops it costs only the bytes on their way.

Until it is complete a file has the name .download-NAME; beside it a note, .download-NAME.json, says
which version of the file on the server these bytes are from. Nothing else writes to these names.
"""

from __future__ import annotations

import errno
import http.client
import json
import logging
import os
import re
import time
from contextlib import closing
from email.message import Message
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from lowshot_kedro.errors import InputError
from lowshot_kedro.input_files import read_json
from lowshot_kedro.locks import written_by_one
from lowshot_kedro.memory import format_bytes
from lowshot_kedro.progress import Progress

logger = logging.getLogger(__name__)

# Attempts in a row that bring nothing new before a download gives up.
MAX_ATTEMPTS = 8
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
# Without a byte for so long, a connection counts as broken.
_TIMEOUT_SECONDS = 60.0
# What a process that is killed loses at most.
_BLOCK_BYTES = 1 << 20

# Besides 500 and above: what a server says that wants to be asked again later.
_PASSING_STATUS = (408, 425, 429)
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class _Interrupted(Exception):
    """A connection that could not be opened or broke off: worth another attempt."""


class Remote(NamedTuple):
    """What a server says of a file.

    Attributes:
        address: Its URL.
        size: Its size in bytes.
        version: Its ETag or else the time of its last change; empty if the server tells neither.
    """

    address: str
    size: int
    version: str


class Transfer:
    """A file, or the beginning of one, on its way from a server to the disk.

    Memory: a block of 1 MiB.

    Args:
        remote: The file on the server.
        path: The path that it belongs at.
        n_bytes: Fetch only its first bytes; None: all.
        row_bytes: Set where a beginning is of use: a file that this has cut after a whole number
            of rows is continued when more are wanted, and kept when fewer are.

    Raises:
        ValueError: If the file on the server is shorter than `n_bytes`.
    """

    def __init__(
        self,
        remote: Remote,
        path: Path,
        n_bytes: int | None = None,
        row_bytes: int | None = None,
    ) -> None:
        self.remote = remote
        self.path = path
        self.n_bytes = remote.size if n_bytes is None else n_bytes
        self._row_bytes = row_bytes
        self._partial = path.with_name(f".download-{path.name}")
        self._note = self._partial.with_name(f"{self._partial.name}.json")
        if self.n_bytes > remote.size:
            raise InputError(
                f"{remote.address}: has {remote.size} bytes{self._as_rows(remote.size)}, but "
                f"{self.n_bytes}{self._as_rows(self.n_bytes)} are wanted"
            )

    def bytes_on_disk(self) -> int:
        """Bytes that need not be fetched; more than wanted if more rows are there.

        Raises:
            ValueError: If the path has a file that is neither this one nor its beginning.
        """
        if not self.path.exists():
            return self._bytes_begun()
        found = self.path.stat().st_size
        if found != self.n_bytes and not self._is_beginning(found):
            raise InputError(
                f"{self.path}: has {found} bytes, expected {self.n_bytes}; it is not overwritten: "
                "delete or move it to have it downloaded"
            )
        if found < self.n_bytes and not self._is_noted():
            raise InputError(
                f"{self.path}: has {found} bytes{self._as_rows(found)}, expected {self.n_bytes}; "
                "it was not downloaded by this command from the file that is on the server now, "
                "and is not continued: delete or move it to have it downloaded"
            )
        return found

    def bytes_missing(self) -> int:
        """Bytes that have to be fetched.

        Raises:
            ValueError: If the path has a file that is neither this one nor its beginning.
        """
        return max(0, self.n_bytes - self.bytes_on_disk())

    def is_done(self) -> bool:
        """Whether the file is there under its name with all that is wanted.

        Raises:
            ValueError: If the path has a file that is neither this one nor its beginning.
        """
        return self.bytes_missing() == 0 and self.path.exists()

    def run(self) -> None:
        """Fetch what is missing, continuing where an earlier process stopped.

        The file gets its name when it is complete and on disk. One that is continued because more
        rows are wanted loses its name until then.

        Raises:
            ConnectionError: After :data:`MAX_ATTEMPTS` attempts without progress.
            ValueError: If the server refuses, or the file changes there; if another process fetches
                or reads it, or the disk is full; and as :meth:`bytes_on_disk`.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.is_done():
            return
        with written_by_one(self.path):
            # Another process may have been faster.
            if not self.is_done():
                self._fetch()

    def _fetch(self) -> None:
        if self.path.exists():
            self.path.replace(self._partial)
        self._partial.touch()
        try:
            with self._partial.open("r+b", buffering=_BLOCK_BYTES) as file:
                file.seek(self._bytes_begun())
                file.truncate()
                _write_note(self._note, self._facts())
                self._receive_all(file)
                file.flush()
                os.fsync(file.fileno())
                n_bytes = file.tell()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise InputError(
                f"{self._partial}: the disk is full; make room, then run the command again to go on"
            ) from error
        self._partial.replace(self.path)
        if n_bytes == self.remote.size:
            self._note.unlink()

    def _facts(self) -> dict[str, Any]:
        return {"size": self.remote.size, "version": self.remote.version}

    def _is_noted(self) -> bool:
        """Whether what is on disk was fetched from the file that is on the server now."""
        try:
            found = read_json(self._note)
        except (FileNotFoundError, ValueError):
            return False
        return bool(found == self._facts())

    def _is_beginning(self, n_bytes: int) -> bool:
        whole_rows = self._row_bytes is not None and n_bytes % self._row_bytes == 0
        return whole_rows and n_bytes <= self.remote.size

    def _bytes_begun(self) -> int:
        """Bytes of an unfinished file that are of use: whole rows if they are enough."""
        if not self._partial.is_file() or not self._is_noted():
            return 0
        begun = self._partial.stat().st_size
        if begun > self.n_bytes and self._row_bytes is not None:
            begun -= begun % self._row_bytes
        return begun if begun <= self.n_bytes or self._is_beginning(begun) else 0

    def _as_rows(self, n_bytes: int) -> str:
        return f" ({n_bytes // self._row_bytes} rows)" if self._row_bytes else ""

    def _receive_all(self, file: BinaryIO) -> None:
        begun = file.tell()
        if begun:
            logger.info(
                "%s: continuing after %s of %s",
                self.path.name,
                format_bytes(begun),
                format_bytes(self.n_bytes),
            )
        attempts = _Attempts(self.remote.address, begun)
        with Progress(self.n_bytes, self.path.name, begun, unit="byte") as progress:
            while file.tell() < self.n_bytes:
                try:
                    self._receive(file, progress)
                except _Interrupted as error:
                    attempts.failed(error, file.tell())

    def _receive(self, file: BinaryIO, progress: Progress) -> None:
        """Append what the server sends, until nothing is missing or it breaks off."""
        begun = file.tell()
        headers = {}
        if begun or self.n_bytes < self.remote.size:
            headers["Range"] = f"bytes={begun}-{self.n_bytes - 1}"
        if begun and self.remote.version:
            headers["If-Range"] = self.remote.version
        with closing(_open(self.remote.address, headers)) as response:
            self._require_same(response, begun)
            if begun and response.status != http.client.PARTIAL_CONTENT:
                logger.info("%s: the server cannot continue a file: starting over", self.path.name)
                progress.update(-begun)
                file.seek(0)
                file.truncate()
            while missing := self.n_bytes - file.tell():
                block = _read(response, min(missing, _BLOCK_BYTES))
                if not block:
                    raise _Interrupted(f"broke off {missing} bytes before the end")
                file.write(block)
                progress.update(len(block))

    def _require_same(self, response: http.client.HTTPResponse, begun: int) -> None:
        """Refuse bytes of another version of the file, or from another place in it."""
        remote, first = self.remote, 0
        found = Remote(remote.address, _size(response.headers) or remote.size, remote.version)
        if response.status == http.client.PARTIAL_CONTENT:
            content_range = response.headers.get("Content-Range", "")
            match = _CONTENT_RANGE.fullmatch(content_range.strip())
            if match is None:
                raise InputError(f"{remote.address}: sends a part without saying which")
            first = int(match[1])
            found = found._replace(size=remote.size if match[2] == "*" else int(match[2]))
            if first != begun:
                raise InputError(
                    f"{remote.address}: sends bytes from {first}, asked for those from {begun}"
                )
        found = found._replace(version=_version(response.headers) or remote.version)
        if found != remote:
            raise InputError(
                f"{remote.address}: has changed on the server ({_differences(remote, found)}); "
                "run the command again to start over"
            )


def look_up(address: str) -> Remote:
    """Ask a server for size and version of a file.

    Raises:
        ConnectionError: After :data:`MAX_ATTEMPTS` attempts.
        ValueError: If the address is none of HTTP, or the server refuses or tells no size.
    """
    if not address.startswith(("http://", "https://")):
        raise InputError(f"{address}: expected an address that begins with http:// or https://")
    attempts = _Attempts(address)
    while True:
        try:
            with closing(_open(address, {}, "HEAD")) as response:
                size = _size(response.headers)
                if size is None:
                    raise InputError(f"{address}: the server does not tell how large the file is")
                return Remote(address, size, _version(response.headers))
        except _Interrupted as error:
            attempts.failed(error)


class _Attempts:
    """Pauses between attempts, which grow until there is progress."""

    def __init__(self, address: str, done: int = 0) -> None:
        self._address = address
        self._furthest = done
        self._failed = 0

    def failed(self, error: Exception, done: int = 0) -> None:
        """Wait before the next attempt.

        Args:
            error: Why the last one failed.
            done: How far it came. A server that can only start over may come no further forever.

        Raises:
            ConnectionError: If there have been enough without progress.
        """
        if done > self._furthest:
            self._furthest, self._failed = done, 0
        self._failed += 1
        if self._failed >= MAX_ATTEMPTS:
            raise ConnectionError(
                f"{self._address}: {error}; given up after {self._failed} attempts without "
                "progress. Run the command again to go on"
            ) from error
        pause = min(_FIRST_PAUSE_SECONDS * 2 ** (self._failed - 1), _LONGEST_PAUSE_SECONDS)
        logger.warning("%s: %s; trying again in %.0f s", self._address, error, pause)
        time.sleep(pause)


def _open(address: str, headers: dict[str, str], method: str = "GET") -> http.client.HTTPResponse:
    request = Request(address, headers={"User-Agent": "lowshot-kedro", **headers}, method=method)
    try:
        response: http.client.HTTPResponse = urlopen(request, timeout=_TIMEOUT_SECONDS)
    except HTTPError as error:
        error.close()
        answer = f"the server answers {error.code} {error.reason}"
        if error.code in _PASSING_STATUS or error.code >= http.client.INTERNAL_SERVER_ERROR:
            raise _Interrupted(answer) from error
        raise InputError(f"{address}: {answer}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(f"no connection ({error})") from error
    return response


def _read(response: http.client.HTTPResponse, n_bytes: int) -> bytes:
    """Some of the next bytes; none at the end."""
    try:
        return response.read1(n_bytes)
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(f"broke off ({error})") from error


def _size(headers: Message) -> int | None:
    size = headers.get("Content-Length", "")
    return int(size) if size.isdecimal() else None


def _version(headers: Message) -> str:
    """What If-Range accepts: a strong ETag, or the time of the last change."""
    tag: str = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified", "")


def _differences(before: Remote, now: Remote) -> str:
    return ", ".join(
        f"{name} {old} before, {new} now"
        for name, old, new in zip(before._fields, before, now, strict=True)
        if old != new
    )


def _write_note(path: Path, facts: dict[str, Any]) -> None:
    written = path.with_name(f"{path.name}.new")
    written.write_text(json.dumps(facts), encoding="utf-8")
    written.replace(path)
