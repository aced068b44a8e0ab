"""How interpreters run the text of a script that was checked, and not whatever has its name by then.

The text goes in by the standard input, as memory that cannot change (see `Program.input`), and the interpreter is told
to read it from there. To the script it looks as if it had been started by its own path:

    sh, bash, ksh   $0 is the path, so `. "$(dirname "$0")/common.sh"` finds what lies beside it
    python          sys.argv[0] and __file__ are the path, sys.path[0] is its folder, tracebacks show its lines
    perl            $0 and __FILE__ are the path, FindBin and __DATA__ work
    others          are given /proc/self/fd/0 as the file, so they cannot find what lies beside the script

Its standard input is /dev/null once it runs, as for every command (with others: the text of the script).

bash does not let anybody set BASH_SOURCE. A script that asks for it, and one that is no text at all, is run by its
path instead; see `Program.checked`.
"""

from __future__ import annotations

import re
from pathlib import PurePath

INPUT = "/proc/self/fd/0"

_SHELL = re.compile(r"(ba|da|a|k|mk|pdk)?sh")
_PYTHON = re.compile(r"python[0-9.]*|pypy[0-9.]*")
_PERL = re.compile(r"perl[0-9.]*")

_SHELL_CODE = f". {INPUT}"
_SHELL_FIRST = b"exec </dev/null; "
"""Before the first line and not on one of its own, so that line numbers stay true."""

_PYTHON_CODE = (
    'import io,os,sys;_=io.open(0,"rb",closefd=False).read();os.dup2(os.open(os.devnull,os.O_RDONLY),0);'
    'del sys.argv[0];__file__=sys.argv[0];sys.path[:1]=[os.path.dirname(__file__)] if sys.path[:1]==[""] '
    'else sys.path[:1];exec(compile(_,__file__,"exec",0,True))'
)
_PERL_FIRST = 'BEGIN { $0 = shift @ARGV; open STDIN, "<", "/dev/null" }\n'

_MARKS = frozenset({_SHELL_CODE, _PYTHON_CODE, INPUT})


def carry(interpreter: list[str], path: str, args: list[str], text: bytes) -> tuple[list[str], bytes]:
    """The command line that runs `text` as if it were the file `path`, and its standard input.

    `interpreter` is the program and its options.
    """
    name = PurePath(interpreter[0]).name
    if _SHELL.fullmatch(name):
        return [*interpreter, "-c", _SHELL_CODE, path, *args], _SHELL_FIRST + text
    if _PYTHON.fullmatch(name):
        return [*interpreter, "-c", _PYTHON_CODE, path, *args], text
    if _PERL.fullmatch(name):
        return [*interpreter, INPUT, path, *args], _perl_first(path) + text
    return [*interpreter, INPUT, *args], text


def asks_for_its_path(interpreter: list[str], text: bytes) -> bool:
    """Whether the script can only be run by its path."""
    return _SHELL.fullmatch(PurePath(interpreter[0]).name) is not None and b"BASH_SOURCE" in text


def without_carrier(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """An interpreter's arguments as they would be if it had been started with the script's path."""
    for place, argument in enumerate(arguments[:8]):
        if argument in _MARKS:
            return arguments[place + 1 :]
    return arguments


def _perl_first(path: str) -> bytes:
    """Sets the names, and numbers the lines that follow from 1."""
    is_plain = not any(character in path for character in '"\\\n\r')
    return (_PERL_FIRST + (f'#line 1 "{path}"\n' if is_plain else "#line 1\n")).encode("utf-8", "surrogateescape")
