"""Writing to disks: files are replaced whole, one writer at a time, and what cannot be written is said in one line."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock, Timeout
from safetensors import SafetensorError

STAGING_PREFIX = ".saving-"
"""How the names of folders begin that a save writes to before it replaces files."""
_SAVING_LOCK = ".saving.lock"

_FREE_SPACE = "free some space there, or name another place"
_GET_RIGHTS = "name a place that you may write to"
_NAME_ANOTHER = "name another place"
_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _FREE_SPACE),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), _GET_RIGHTS),
    **dict.fromkeys((errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG), _NAME_ANOTHER),
}
# How libraries report a write that failed: safetensors with the system's number, torch's archives without one.
_SYSTEM_NUMBER = re.compile(r"\(os error (\d+)\)")
_TORCH_ARCHIVE = re.compile(r"PytorchStreamWriter|inline_container|iostream error")


class CannotWriteError(OSError):
    """A file or folder cannot be written; the message says which, why, and what to do."""


@contextmanager
def plain_errors(target: str | os.PathLike[str]) -> Iterator[None]:
    """Around what writes, and nothing else: say in one line that a disk is full, read-only or no place for `target`.

    Other errors pass as they are.

    Raises:
        CannotWriteError: in place of the errors of the system, of safetensors and of torch.
    """
    try:
        yield
    except CannotWriteError:
        raise
    except (OSError, SafetensorError, RuntimeError) as error:
        number = _number_of(error)
        if number not in _REMEDIES:
            raise
        raise _cannot_write(target, os.strerror(number), _REMEDIES[number], number) from error


def _number_of(error: Exception) -> int | None:
    """The system's number of an error; that of a full disk where torch says no more than that writing failed."""
    if isinstance(error, OSError):
        return error.errno
    named = _SYSTEM_NUMBER.search(str(error))
    if named is not None:
        return int(named[1])
    return errno.ENOSPC if _TORCH_ARCHIVE.search(str(error)) else None


def _cannot_write(target: str | os.PathLike[str], reason: str, remedy: str, number: int) -> CannotWriteError:
    error = CannotWriteError(f"`{os.fspath(target)}` cannot be written ({reason}): {remedy}.")
    error.errno = number
    return error


@contextmanager
def replaced_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A file to write in place of `path`, which it then becomes: where writing fails, `path` stays as it was.

    Links are not followed.

    Raises:
        CannotWriteError: it cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with plain_errors(path):
        temporary.unlink(missing_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def only_writer(target: str | os.PathLike[str], lock: str | os.PathLike[str] | None = None) -> Iterator[None]:
    """Keep other writers of `target` away until the end of the context.

    Work that ends with writing begins with this: a place that takes no file is found before the work. The system frees
    the lock when a process ends, however it ends; the file of a killed process is taken over.

    Args:
        target: what is written, a file or a folder.
        lock: the file to lock; beside the file `target` by default. It and the folders made for it are gone
            afterwards, unless something was written there.

    Raises:
        CannotWriteError: something else is writing there, or nothing can be written.
    """
    target = Path(target)
    lock = target.with_name(f".{target.name}.lock") if lock is None else Path(lock)
    made = [folder for folder in lock.parents if not folder.exists()]
    held = FileLock(lock)
    with plain_errors(target):
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            held.acquire(timeout=0)
        except Timeout as error:
            remedy = "wait until it has ended, or name another place"
            raise _cannot_write(target, "something else is writing there", remedy, errno.EAGAIN) from error
    try:
        yield
    finally:
        # While it is held: afterwards, it may be the file of the next writer.
        lock.unlink(missing_ok=True)
        held.release()
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def staging_folder(target: Path) -> Iterator[Path]:
    """A new folder in the folder `target`, which is made if absent, for files that shall then be moved to it.

    Raises:
        CannotWriteError: it cannot be made or written to, or something else is saving there.
    """
    with plain_errors(target), only_writer(target, target / _SAVING_LOCK):
        # What is there is of killed processes, whose locks are free.
        _remove_staging_folders(target)
        with TemporaryDirectory(prefix=STAGING_PREFIX, dir=target) as staging:
            yield Path(staging)


def remove_leftovers(target: Path) -> None:
    """Remove the folders that killed saves left in a folder, unless it is being saved to."""
    with suppress(OSError), only_writer(target, target / _SAVING_LOCK):
        _remove_staging_folders(target)


def _remove_staging_folders(target: Path) -> None:
    for path in target.glob(f"{STAGING_PREFIX}*/"):
        if not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
