"""The command line: `run` the stack, run a command with the `services`, `clean` what both made."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.embedded.clean import clean
from deploy.embedded.command import run_with_services
from deploy.embedded.errors import EXIT_FAILED, EmbeddedError
from deploy.embedded.run import RunOptions, run

DEFAULT_STATE = Path(".opsmap")


def main(arguments: Sequence[str]) -> int:
    _open_standard_streams()
    options = _parser().parse_args(arguments)
    try:
        if options.action == "run":
            return run(
                RunOptions(
                    state=options.state,
                    web_port=options.web_port,
                    is_any_port_free=options.free_ports,
                    has_demonstration=options.demo,
                    ready_file=options.ready_file,
                )
            )
        if options.action == "services":
            return run_with_services(options.state, options.command)
        return clean(options.state, is_confirmed=options.yes)
    except EmbeddedError as error:
        print(f"opsmap: {error}", file=sys.stderr)
        return error.exit_code
    except (PermissionError, NotADirectoryError) as error:
        print(f"opsmap: {error.filename or options.state} cannot be used: {error.strerror}.", file=sys.stderr)
        return EXIT_FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.embedded", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--state", type=Path, default=DEFAULT_STATE, help="state folder (default: %(default)s)")

    running = actions.add_parser("run", parents=[common], help="start everything, until Ctrl-C")
    running.add_argument("--web-port", type=_port, help="port of the pages (default: 8000)")
    running.add_argument("--free-ports", action="store_true", help="any free ports instead of the usual ones")
    running.add_argument("--no-demo", dest="demo", action="store_false", help="without the demonstration's Map")
    running.add_argument("--ready-file", type=Path, help="written as JSON when everything is ready")

    around = actions.add_parser("services", parents=[common], help="PostgreSQL and Valkey around one command")
    around.add_argument("command", nargs="+", metavar="CMD", help="after --: the command and its arguments")

    cleaning = actions.add_parser("clean", parents=[common], help="remove the data, inside and outside the folder")
    cleaning.add_argument("--yes", action="store_true", help="do not ask")
    return parser


def _port(text: str) -> int:
    port = int(text) if text.isdecimal() else 0
    if not 0 < port < 65536:
        raise argparse.ArgumentTypeError(f"expected a port between 1 and 65535, found {text!r}")
    return port


def _open_standard_streams() -> None:
    """A caller may have closed them; else the first sockets opened here would become 0, 1 or 2 of every child."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
