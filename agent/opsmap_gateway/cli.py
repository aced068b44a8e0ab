"""The command `opsmap-gateway`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from opsmap_daemon import lifecycle, logs
from opsmap_daemon.configuration import ConfigurationError, load
from opsmap_daemon.door import collect_dead_connections_soon
from opsmap_gateway import __version__
from opsmap_gateway.configuration import Configuration
from opsmap_gateway.gateway import Gateway

_logger = logging.getLogger(__name__)

DEFAULT_CONFIGURATION = Path("/etc/opsmap/gateway.yaml")
EXIT_FAILURE = 1
_ENROLL = "get this gateway's first certificate with an enrolment token"
EXIT_CONFIGURATION = 78
"""EX_CONFIG of sysexits.h: a service manager need not start it again before somebody has changed a file."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["enroll"]:
        return _enroll(given[1:])
    options = _parser().parse_args(given)
    try:
        configuration = load(options.config, Configuration)
        gateway = Gateway(configuration)
    except ConfigurationError as error:
        for fault in error.faults:
            print(fault, file=sys.stderr)
        return EXIT_CONFIGURATION
    if options.command == "check-config":
        print(f"{options.config}: the configuration and its certificates are fine")
        return 0
    return _run(gateway, configuration)


def _run(gateway: Gateway, configuration: Configuration) -> int:
    try:
        logs.configure(configuration.logging)
        _logger.info(
            "gateway %s of zone %s, version %s",
            configuration.gateway.id,
            configuration.gateway.zone,
            __version__,
        )
        collect_dead_connections_soon()
        lifecycle.run(gateway.run, gateway.drain)
    except OSError as error:
        print(f"cannot start: {error}", file=sys.stderr)
        return EXIT_FAILURE
    _logger.info("stopped")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="opsmap-gateway", description="Connects the agents of one zone to the OpsMap backend."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (
        ("run", "run the gateway in the foreground until SIGTERM or SIGINT"),
        ("check-config", "check the configuration file and the certificates it names, and exit"),
    ):
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        command.add_argument(
            "--config",
            type=Path,
            default=DEFAULT_CONFIGURATION,
            metavar="FILE",
            help="the configuration file (default: %(default)s)",
        )
    commands.add_parser("enroll", help=_ENROLL)
    return parser


def _enroll(arguments: Sequence[str]) -> int:
    """With a parser of its own: it loads what a running gateway does not need."""
    from opsmap_gateway import enrolment

    parser = argparse.ArgumentParser(prog="opsmap-gateway enroll", description=f"{_ENROLL.capitalize()}.")
    enrolment.add_arguments(parser)
    return enrolment.enroll(parser.parse_args(arguments))
