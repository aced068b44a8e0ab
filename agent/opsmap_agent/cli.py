"""The command `opsmap-agent`."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from opsmap_agent import __version__
from opsmap_agent.agent import Agent
from opsmap_agent.configuration import Configuration
from opsmap_agent.upkeep.instance import StartError, is_running, keep_descriptors_private, stay_small
from opsmap_daemon import lifecycle, logs
from opsmap_daemon.configuration import ConfigurationError, load
from opsmap_daemon.connection import GaveUpError

# What only one of the commands needs is imported by it: the agent that runs has to stay small.

_logger = logging.getLogger(__name__)

DEFAULT_CONFIGURATION = Path("/etc/opsmap/agent.yaml")
EXIT_FAILURE = 1
EXIT_NOT_RUNNING = 3
EXIT_CONFIGURATION = 78
"""EX_CONFIG of sysexits.h: a service manager need not start it again before somebody has changed a file."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser(with_enrolment=given[:1] == ["enroll"]).parse_args(given)
    command: Callable[[argparse.Namespace], int] = options.run_command
    try:
        return command(options)
    except ConfigurationError as error:
        for fault in error.faults:
            print(fault, file=sys.stderr)
        return EXIT_CONFIGURATION


def _run(options: argparse.Namespace) -> int:
    configuration = load(options.config, Configuration, apart=True)
    agent = Agent(configuration)
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


def _check_config(options: argparse.Namespace) -> int:
    """0 also with warnings: they keep nothing from starting."""
    from opsmap_agent.upkeep.preflight import look_around

    configuration = load(options.config, Configuration)
    Agent(configuration)
    findings = look_around(configuration)
    for warning in findings.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if findings.faults:
        raise ConfigurationError(findings.faults)
    besides = f", but see the {len(findings.warnings)} warning(s)" if findings.warnings else ""
    print(f"{options.config}: the configuration and its certificates are fine{besides}")
    return 0


def _status(options: argparse.Namespace) -> int:
    from opsmap_agent.upkeep.diagnosis import describe, find_troubles
    from opsmap_agent.upkeep.status import StatusUnreadableError, read_status
    from opsmap_protocol import codec

    folder = load(options.config, Configuration).buffer.path
    runs, now = is_running(folder), datetime.now(UTC)
    try:
        status = read_status(folder)
    except StatusUnreadableError as error:
        if options.json:
            print(json.dumps({"is_running": runs, "troubles": [str(error)]}))
        else:
            print(f"the agent {'is running' if runs else 'is not running'}: {error}", file=sys.stderr)
        return EXIT_FAILURE if runs else EXIT_NOT_RUNNING
    troubles = [str(trouble) for trouble in find_troubles(status, now)] if runs else ["the agent is not running"]
    if options.json:
        print(json.dumps({"is_running": runs, "troubles": troubles, "status": codec.to_plain(status)}))
    else:
        # What was refused is quoted, and may be anybody's words.
        for line in (*describe(status, now), *(f"TROUBLE      {trouble}" for trouble in troubles)):
            print(logs.on_one_line(line))
        if not runs:
            print(f"             (what is above was so at {status.written_at.astimezone():%Y-%m-%d %H:%M:%S})")
    return EXIT_NOT_RUNNING if not runs else EXIT_FAILURE if troubles else 0


def _uninstall(options: argparse.Namespace) -> int:
    from opsmap_agent.upkeep import uninstall

    configuration = load(options.config, Configuration)
    if is_running(configuration.buffer.path):
        print("the agent is running: stop it first (systemctl disable --now opsmap-agent)", file=sys.stderr)
        return EXIT_FAILURE
    jobs = uninstall.live_jobs(configuration)
    if jobs and not options.force:
        print(
            f"{len(jobs)} detached processes still run ({', '.join(jobs[:3])}); their ends would never be known."
            " With --force they run on, unwatched",
            file=sys.stderr,
        )
        return EXIT_FAILURE
    traces = uninstall.find_traces(configuration, options.config, keeps_logs=options.keep_logs)
    print(
        "to be removed, keys overwritten before:",
        *(map(str, traces.all()) if traces.all() else ["nothing"]),
        sep="\n  ",
    )
    print("left as it is:", *traces.kept, sep="\n  ")
    if not options.yes and not _is_agreed():
        print("nothing was removed", file=sys.stderr)
        return EXIT_FAILURE
    failures = uninstall.remove(traces)
    for failure in failures:
        print(failure, file=sys.stderr)
    print("In OpsMap, revoke this agent: only then its certificate counts nowhere, whoever may have a copy of the key.")
    return EXIT_FAILURE if failures else 0


def _is_agreed() -> bool:
    if not sys.stdin.isatty():
        print("nobody can be asked here: give --yes", file=sys.stderr)
        return False
    try:
        return input("Remove all that? [yes/no] ").strip().lower() == "yes"
    except EOFError:
        return False


def _enroll(options: argparse.Namespace) -> int:
    from opsmap_agent.identity.enrolment import enroll

    return enroll(options)


def _parser(*, with_enrolment: bool) -> argparse.ArgumentParser:
    """`with_enrolment`: its options too, whose module only enrolment needs."""
    parser = argparse.ArgumentParser(
        prog="opsmap-agent", description="Runs commands on this host for OpsMap and watches its components."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, run_command: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        command.set_defaults(run_command=run_command)
        return command

    with_config = [
        add("run", _run, "run the agent in the foreground until SIGTERM or SIGINT"),
        add("check-config", _check_config, "check the configuration, and what the agent would find when it starts"),
        status := add("status", _status, "say how the agent is; exit code 0: well, 1: trouble, 3: not running"),
        uninstall := add("uninstall", _uninstall, "remove the agent's keys, certificates, journal and logs"),
    ]
    status.add_argument("--json", action="store_true", help="one JSON object, for programs")
    uninstall.add_argument("--keep-logs", action="store_true", help="leave the logs of the agent and of its jobs")
    uninstall.add_argument("--force", action="store_true", help="also while detached processes run")
    uninstall.add_argument("--yes", action="store_true", help="do not ask")
    for command in with_config:
        command.add_argument(
            "--config",
            type=Path,
            default=DEFAULT_CONFIGURATION,
            metavar="FILE",
            help="the configuration file (default: %(default)s)",
        )
    enroll = add("enroll", _enroll, "get this host's first certificate with an enrolment token")
    if with_enrolment:
        from opsmap_agent.identity.enrolment import add_arguments

        add_arguments(enroll)
    return parser
