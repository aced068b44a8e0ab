"""What is about to be started, after all rules have been asked."""

from __future__ import annotations

import errno
import fcntl
import os
from dataclasses import dataclass

from opsmap_agent.commands.refusals import RejectedError

_MFD_NOEXEC_SEAL = 0x8
"""Since Linux 6.3; a host may insist on it (vm.memfd_noexec)."""

_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """A file that was checked and will be run by its path. The change time also tells of new content in that file."""

    path: str
    device: int
    inode: int
    changed_ns: int

    @classmethod
    def of(cls, path: str, status: os.stat_result) -> CheckedFile:
        return cls(path, status.st_dev, status.st_ino, status.st_ctime_ns)

    def open_again(self) -> int:
        """A descriptor of it, without any right but to compare.

        Raises:
            RejectedError: another file, or other content, is there by now.
        """
        try:
            descriptor = os.open(self.path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            raise RejectedError(f"{self.path} went away after it was checked") from None
        if CheckedFile.of(self.path, os.fstat(descriptor)) != self:
            os.close(descriptor)
            raise RejectedError(f"{self.path} was replaced after it was checked")
        return descriptor


@dataclass(frozen=True, slots=True)
class Program:
    """What to start: `argv[0]` is an absolute path.

    `input` is its standard input, in memory that nobody can change any more: the text of a script, which the
    interpreter is told to read from there. None is /dev/null. `checked` is what must not have changed since.
    """

    argv: list[str]
    env: dict[str, str]
    working_dir: str = "/"
    input: bytes | None = None
    checked: tuple[CheckedFile, ...] = ()
    run_as_user: str | None = None

    def open_input(self) -> int:
        """A descriptor of the standard input, for the caller to close."""
        if self.input is None:
            return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        descriptor = _memory_file()
        try:
            with os.fdopen(os.dup(descriptor), "wb") as file:
                file.write(self.input)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            os.lseek(descriptor, 0, os.SEEK_SET)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def check_again(self) -> None:
        """Raises RejectedError if something was replaced since it was checked."""
        for file in self.checked:
            os.close(file.open_again())


def _memory_file() -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("opsmap-input", flags | _MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.memfd_create("opsmap-input", flags)
