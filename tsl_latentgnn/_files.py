"""Files that are whole at any moment: written beside, and put in their place at the end."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike[str], beside: str | None = None) -> Iterator[Path]:
    """Give a path to write to, whose file takes the place of ``path`` once all of it is on the disk.

    Until then, and where the writing fails, what was at ``path`` stays. Its permissions are kept, and a link is
    followed. What is no file, such as a pipe or ``/dev/null``, is written to as it is.

    .. code-block:: python

        with replacing("figure.png") as unfinished:
            figure.savefig(unfinished)

    Args:
        path: The file.
        beside: Name of the unfinished file in the same folder, where it is to be the same each time: what a killed
            process left is then written over. By default one that no other process has, with the suffix of ``path``.

    Raises:
        OSError: If there is no such folder, or the file may not be written; it names ``path``.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        yield target
        return
    name = beside or f".{target.stem[:50]}.{secrets.token_hex(4)}{target.suffix}"
    unfinished = target.with_name(name)
    try:
        if target.exists():
            open(target, "ab").close()
        open(unfinished, "wb").close()
        unfinished.unlink()
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    try:
        yield unfinished
        with open(unfinished, "rb+") as file:
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, unfinished)
        os.replace(unfinished, target)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    if hasattr(os, "O_DIRECTORY"):  # Windows opens no folder
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def is_same_file(one: str | os.PathLike[str] | int, other: str | os.PathLike[str] | int) -> bool:
    """Whether two paths (or open files, by their number) are the same file, through links, too."""
    try:
        return os.path.samestat(os.stat(one), os.stat(other))
    except OSError:  # one of them is not there
        return False
