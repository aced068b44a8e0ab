"""The command `opsmap-agent`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from opsmap_agent import __version__
from opsmap_agent.agent import Agent
from opsmap_agent.configuration import Configuration
from opsmap_agent.instance import StartError, keep_descriptors_private, stay_small
from opsmap_daemon import lifecycle, logs
from opsmap_daemon.configuration import ConfigurationError, load
from opsmap_daemon.connection import GaveUpError

_logger = logging.getLogger(__name__)

DEFAULT_CONFIGURATION = Path("/etc/opsmap/agent.yaml")
EXIT_FAILURE = 1
EXIT_CONFIGURATION = 78
"""EX_CONFIG of sysexits.h: a service manager need not start it again before somebody has changed a file."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        configuration = load(options.config, Configuration)
        agent = Agent(configuration)
    except ConfigurationError as error:
        for fault in error.faults:
            print(fault, file=sys.stderr)
        return EXIT_CONFIGURATION
    if options.command == "check-config":
        print(f"{options.config}: the configuration and its certificates are fine")
        return 0
    return _run(agent, configuration)


def _run(agent: Agent, configuration: Configuration) -> int:
    try:
        logs.configure(configuration.logging)
        keep_descriptors_private()
        stay_small()
        _logger.info("agent %s, version %s", agent.agent_id, __version__)
        lifecycle.run(agent.run)
    except (OSError, StartError, GaveUpError) as error:
        print(f"cannot go on: {error}", file=sys.stderr)
        return EXIT_FAILURE
    _logger.info("stopped")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="opsmap-agent", description="Runs commands on this host for OpsMap and watches its components."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (
        ("run", "run the agent in the foreground until SIGTERM or SIGINT"),
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
    return parser
