"""One writer at a time for each result, and none while a run reads it, across all processes.

Beside a result in use lies a file .partial-NAME.lock. It tells who uses the result; what keeps
others away is a lock of the operating system on it, which ends with the process however that ends,
and holds between the machines of a cluster too where their file system can lock. A file that a
killed process has left behind locks nothing, and the next user of the result takes it away.

Such locks belong to a process. Within one, users of a result are counted here: the run that has
claimed it may write it in any of its threads, and two threads never write it at a time.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import multiprocessing
import os
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from lowshot_kedro.errors import InputError

logger = logging.getLogger(__name__)

# No small file takes longer to write.
SECONDS_TO_WAIT = 10.0
# A process that lets go of a result looks for this time whether others have it.
_SECONDS_TO_LET_GO = 0.5
_SECONDS_BETWEEN_TRIES = 0.02
# A process that has just locked a result may not have written yet who it is.
_TRIES_TO_READ = 3
_MAX_COMMAND = 150

# The errors of a file system that has no locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)
# The errors of a folder in which nobody may write: nobody has to be kept away there.
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR)


class ResultInUseError(InputError):
    """Another process uses the result; the message says which process, and what it does."""


def lock_path(path: Path) -> Path:
    """The file beside a result, or beside a folder of results, that tells who uses it."""
    return path.with_name(f".partial-{path.name}.lock")


@contextmanager
def written_by_one(*paths: Path, seconds_to_wait: float = 0.0) -> Iterator[None]:
    """Write results that no other process or thread uses meanwhile.

    Args:
        paths: The files, or the folders that appear whole. Their folders are made.
        seconds_to_wait: How long others may take to end.

    Raises:
        ResultInUseError: Naming the result, and what uses it.
    """
    with ExitStack() as stack:
        _enter(stack, paths, _WRITING, seconds_to_wait)
        yield


@contextmanager
def read_by_many(*paths: Path, seconds_to_wait: float = 0.0) -> Iterator[None]:
    """Read results that no other process writes meanwhile.

    Where nobody can write beside them, they are left alone.

    Args:
        paths: The files.
        seconds_to_wait: How long others may take to end.

    Raises:
        ResultInUseError: Naming the result, and what writes it.
    """
    with ExitStack() as stack:
        _enter(stack, paths, _READING, seconds_to_wait)
        yield


class Claims:
    """What a run uses, from its beginning to its end: results that it writes, others that it reads.

    A claim keeps other processes away, not the threads of this one: nodes write what their run has
    claimed.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()

    def to_write(self, paths: Iterable[Path]) -> None:
        """Claim results that this run is going to write.

        Raises:
            ResultInUseError: Naming the result, and what uses it.
        """
        _enter(self._stack, paths, _CLAIMING, _SECONDS_TO_LET_GO)

    def to_read(self, paths: Iterable[Path]) -> None:
        """Keep results from being written by others while this run reads them.

        Where nobody can write beside them, they are left alone.

        Raises:
            ResultInUseError: Naming the result, and what writes it.
        """
        _enter(self._stack, paths, _READING, _SECONDS_TO_LET_GO)

    def release(self) -> None:
        """Let other processes use the results that were claimed."""
        self._stack.close()


# Those of the run that this process does.
of_this_run = Claims()


def files_in_use(dataset: object) -> list[Path]:
    """The files that nobody else may write while a run uses a dataset; none for other kinds."""
    files: list[Path] = getattr(dataset, "files_in_use", list)()
    return files


_READING, _CLAIMING, _WRITING = "reading", "claiming", "writing"


@dataclass(frozen=True)
class _User:
    """Who uses a result, as a line of the lock's file tells it to others.

    Attributes:
        pid: Number of the process.
        host: Name of its machine.
        since: When it began to use the result.
        command: What a person has typed.
        reads: Whether it reads the result, or writes it.
    """

    pid: int
    host: str
    since: str
    command: str
    reads: bool

    @classmethod
    def this_one(cls, reads: bool) -> _User:
        """This process."""
        program, *arguments = sys.argv or [""]
        command = " ".join([Path(program).name or "python", *arguments])
        since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        return cls(os.getpid(), socket.gethostname(), since, command[:_MAX_COMMAND], reads)

    @property
    def is_this_machine(self) -> bool:
        """Whether it runs on this machine."""
        return self.host == socket.gethostname()

    @property
    def is_alive(self) -> bool:
        """Whether it is not known to have ended."""
        if not self.is_this_machine:
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return True

    @property
    def is_parent(self) -> bool:
        """Whether this process was started by it, for a part of its work."""
        parent = multiprocessing.parent_process()
        return parent is not None and self.is_this_machine and parent.pid == self.pid

    def described(self) -> str:
        """Who it is and what it does, for a message."""
        place = "" if self.is_this_machine else f" on {self.host}"
        return (
            f"process {self.pid}{place} ({' '.join(self.command.split())}) has been "
            f"{'reading' if self.reads else 'writing'} it since {self.since}"
        )


class _Lock:
    """The lock of this process on one result, and how many of its users need it for what."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # None where a file system has no locks, and where there is nobody to keep away.
        self.descriptor: int | None = None
        self.is_exclusive = False
        self.n_readers = 0
        self.n_writers = 0
        self.writing_thread: int | None = None
        self.n_writing = 0

    def require(self, exclusive: bool) -> None:
        """Have the lock, at least as strong as asked for."""
        if self.n_readers + self.n_writers == 0:
            self._open(exclusive)
        elif exclusive and not self.is_exclusive and self.descriptor is not None:
            is_ours = self._lock(self.descriptor, exclusive=True)
            if is_ours:
                self._tell(self.descriptor, reads=False)
        self.is_exclusive = self.is_exclusive or exclusive

    def relax(self) -> None:
        """Let others in as far as the users that are left allow it."""
        if self.n_writers:
            return
        descriptor = self.descriptor
        if self.n_readers:
            if self.is_exclusive and descriptor is not None:
                self._tell(descriptor, reads=True)
                fcntl.lockf(descriptor, fcntl.LOCK_SH)
            self.is_exclusive = False
            return
        self.is_exclusive = False
        if descriptor is None:
            return
        is_last = _remove_unless_used(descriptor, lock_path(self.path))
        self.forget()
        if not is_last:
            # Others read, or ended at the same moment and saw this one.
            with suppress(OSError):
                descriptor = os.open(lock_path(self.path), os.O_RDWR | os.O_CLOEXEC)
                try:
                    _remove_unless_used(descriptor, lock_path(self.path))
                finally:
                    os.close(descriptor)

    def forget(self) -> None:
        """Close the file, and with it end the lock."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def _open(self, exclusive: bool) -> None:
        path = lock_path(self.path)
        while True:
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except OSError as error:
                if not exclusive and error.errno in _NOT_WRITABLE:
                    return
                raise
            try:
                if not self._lock(descriptor, exclusive):
                    return
                if _is_file(descriptor, path):
                    self._tell(descriptor, reads=not exclusive)
                    self.descriptor = descriptor
                    return
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                _warn_once(path.parent)
                path.unlink(missing_ok=True)
                return
            finally:
                if self.descriptor is None:
                    os.close(descriptor)

    def _lock(self, descriptor: int, exclusive: bool) -> bool:
        """Lock the file; false where the process that has sent this one has locked it for both."""
        kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        try:
            fcntl.lockf(descriptor, kind | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            for _ in range(_TRIES_TO_READ):
                others = [user for user in _users(descriptor) if user.pid != os.getpid()]
                if others:
                    break
                time.sleep(_SECONDS_BETWEEN_TRIES)
            if others and all(user.is_parent for user in others):
                return False
            user = others[-1].described() if others else "another process is using it"
            raise ResultInUseError(
                f"{self.path}: {user}; wait until it has ended, or stop it"
            ) from None

    def _tell(self, descriptor: int, reads: bool) -> None:
        """Write down who this is; behind others that read, since nobody else writes."""
        line = json.dumps(asdict(_User.this_one(reads))).encode() + b"\n"
        with suppress(OSError):
            # Others who share the folder have to lock it as well, whatever the umask says.
            os.fchmod(descriptor, 0o666)
        with suppress(OSError):  # The lock holds on a full disk too.
            if not reads:
                os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, line, os.fstat(descriptor).st_size)


def _remove_unless_used(descriptor: int, path: Path) -> bool:
    """Take a lock's file away; false where others lock it. Those that have it open notice that."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_file(descriptor, path):
            path.unlink()
    except OSError:
        return False
    return True


def _users(descriptor: int) -> list[_User]:
    """Who has told that they use a result, and is not known to be gone."""
    found = []
    for line in os.pread(descriptor, os.fstat(descriptor).st_size, 0).splitlines():
        # What another version or a crash has left in it only makes the message shorter.
        with suppress(ValueError, TypeError):
            found.append(_User(**json.loads(line)))
    return [user for user in found if user.is_alive]


def _is_file(descriptor: int, path: Path) -> bool:
    """Whether an open file still has its name."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)


_warned: set[Path] = set()


def _warn_once(folder: Path) -> None:
    if folder not in _warned:
        _warned.add(folder)
        logger.warning("%s: no locks on this file system; let one process at a time write", folder)


_locks: dict[Path, _Lock] = {}
_mutex = threading.Lock()


def _begin_child() -> None:
    """Forget the locks in a child that was forked: they stay the parent's, which keeps them."""
    global _mutex
    _mutex = threading.Lock()
    for lock in _locks.values():
        lock.forget()
    _locks.clear()


os.register_at_fork(after_in_child=_begin_child)


def _in_order(paths: Iterable[Path]) -> Sequence[Path]:
    """The paths in the order of all processes, so that no two wait for each other."""
    return sorted({Path(os.path.realpath(path.parent)) / path.name for path in paths})


def _enter(stack: ExitStack, paths: Iterable[Path], how: str, seconds_to_wait: float) -> None:
    """Use results until the stack is left."""
    for path in _in_order(paths):
        if how != _READING:
            path.parent.mkdir(parents=True, exist_ok=True)
        stack.enter_context(_used(path, how, seconds_to_wait))


@contextmanager
def _used(path: Path, how: str, seconds_to_wait: float) -> Iterator[None]:
    deadline = time.monotonic() + seconds_to_wait
    while True:
        try:
            with _mutex:
                lock = _begin(path, how)
            break
        except ResultInUseError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_SECONDS_BETWEEN_TRIES)
    try:
        yield
    finally:
        with _mutex:
            _end(lock, how)


def _begin(path: Path, how: str) -> _Lock:
    this_thread = threading.get_ident()
    lock = _locks.setdefault(path, _Lock(path))
    try:
        if how == _WRITING and lock.writing_thread not in (None, this_thread):
            raise ResultInUseError(f"{path}: another thread of this process is writing it")
        lock.require(exclusive=how != _READING)
    except BaseException:
        if lock.n_readers + lock.n_writers == 0:
            lock.forget()
            del _locks[path]
        raise
    if how == _READING:
        lock.n_readers += 1
    else:
        lock.n_writers += 1
    if how == _WRITING:
        lock.writing_thread = this_thread
        lock.n_writing += 1
    return lock


def _end(lock: _Lock, how: str) -> None:
    if how == _READING:
        lock.n_readers -= 1
    else:
        lock.n_writers -= 1
    if how == _WRITING:
        lock.n_writing -= 1
        if lock.n_writing == 0:
            lock.writing_thread = None
    lock.relax()
    if lock.n_readers + lock.n_writers == 0:
        _locks.pop(lock.path, None)
