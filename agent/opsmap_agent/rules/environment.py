"""The variables of a command: what it inherits, and what it may bring."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from opsmap_agent.commands.refusals import RejectedError

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KEPT = ("PATH", "HOME", "LANG", "TZ")
"""All that a command inherits from the agent's environment; the rest may hold secrets."""

_KEPT_FOR_OTHERS = ("LANG", "TZ")

_LOADER = re.compile(
    r"LD_.*|DYLD_.*|GLIBC_TUNABLES|GCONV_PATH|LOCPATH|NLSPATH|MALLOC_.*|HOSTALIASES|RES_OPTIONS|LOCALDOMAIN"
    r"|IFS|ENV|BASH_ENV|BASH_FUNC_.*|BASHOPTS|SHELLOPTS|PS4|GLOBIGNORE|CDPATH|FPATH|ZDOTDIR|PROMPT_COMMAND"
    r"|PYTHON.*|PERL.*|RUBYLIB|RUBYOPT|NODE_OPTIONS|NODE_PATH|JAVA_TOOL_OPTIONS|_JAVA_OPTIONS|JDK_JAVA_OPTIONS"
    r"|SUDO_.*|TERMINFO.*|TERMCAP",
    re.ASCII,
)
"""Variables that make a program load or run something else: sudo's own list of bad ones, and those of interpreters."""


def own_path() -> str:
    return os.environ.get("PATH", DEFAULT_PATH)


def environment(given: Mapping[str, str], *, is_other_user: bool) -> dict[str, str]:
    """The whole environment. Another user's PATH is a fixed one, and his HOME is found by who switches to him."""
    names = _KEPT_FOR_OTHERS if is_other_user else _KEPT
    kept = {name: os.environ[name] for name in names if name in os.environ}
    return {"PATH": DEFAULT_PATH} | kept | dict(given)


def refuse_loader_variables(given: Mapping[str, str], because: str) -> None:
    """Raises RejectedError if a variable would make the program run something else than itself."""
    for name in given:
        if _LOADER.fullmatch(name):
            raise RejectedError(f"the variable {name[:80]} makes programs load other code; refused {because}")
