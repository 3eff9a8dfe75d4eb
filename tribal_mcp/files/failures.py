"""What a failed system call means to users, in one wording for all files."""

import errno
import os

from tribal_mcp.errors import NoSpace, StoreError, SystemFailure, TribalError

DISK_FAILS = {errno.EIO, errno.ENXIO} | {
    getattr(errno, name)
    for name in ("EREMOTEIO", "EUCLEAN", "EBADMSG", "ENODATA", "EMEDIUMTYPE", "ENOMEDIUM")
    if hasattr(errno, name)
}
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

_SPACE = {
    errno.ENOSPC: ("the disk is full", "Free some space"),
    errno.EDQUOT: ("your disk quota is used up", "Free some space"),
    errno.EFBIG: ("the file would be larger than the system allows", "Use another disk"),
}
_SYSTEM = {
    errno.EMFILE: ("this process has too many open files", "Raise the limit (ulimit -n)"),
    errno.ENFILE: ("the system has too many open files", "Close other programs"),
    errno.ENOMEM: ("the system is out of memory", "Close other programs"),
}
_REFUSED = {
    errno.EROFS: "the file system is mounted read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EISDIR: "it is a directory, not a file",
    errno.ENOTDIR: "a file is in the place of a directory",
    errno.ENOTEMPTY: "a directory is in its place",
    errno.EEXIST: "something else is in its place",
}


def failure(
    error: OSError,
    shown: str,
    outcome: str,
    *,
    advice: str = "Check its owner and its permissions.",
    refused: type[TribalError] = StoreError,
) -> TribalError:
    """The error that tells users of a failed system call.

    Args:
        error: what the system reported.
        shown: the file, as the subject of a sentence.
        outcome: a sentence: what was done before, or that nothing was.
        advice: what to do if the system refuses this path, and would not refuse another.
        refused: the class of that error.
    """
    number = error.errno or 0
    if number in DISK_FAILS:
        return SystemFailure(
            f"The disk reports an I/O error on {_object(shown)}. {outcome} Check the disk; if "
            "memories are missing, import them from a bundle."
        )
    if number in _SPACE:
        why, remedy = _SPACE[number]
        return NoSpace(f"{shown} can't be written: {why}. {outcome} {remedy} and try again.")
    if number in _SYSTEM:
        why, remedy = _SYSTEM[number]
        return SystemFailure(f"{shown} can't be used: {why}. {outcome} {remedy} and try again.")
    why = _REFUSED.get(number) or (os.strerror(number).lower() if number else "unknown error")
    return refused(f"{shown} can't be used: {why}. {outcome} {advice}")


def _object(shown: str) -> str:
    """The subject of a sentence, for use inside one."""
    return shown[0].lower() + shown[1:] if shown.startswith(("A ", "The ")) else shown
