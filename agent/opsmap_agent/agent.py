"""Putting an agent together from its configuration, and the order in which it starts and stops."""

from __future__ import annotations

import asyncio
import getpass
import logging
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from websockets.asyncio.client import ClientConnection

from opsmap_agent.checks.completion import CheckRunner
from opsmap_agent.checks.health import HealthMonitor
from opsmap_agent.checks.probes import Prober
from opsmap_agent.commands.dispatcher import Dispatcher
from opsmap_agent.commands.execution import Execution
from opsmap_agent.commands.sync import SyncRunner
from opsmap_agent.configuration import Configuration
from opsmap_agent.discovery.discoverer import Discoverer
from opsmap_agent.host import description
from opsmap_agent.identity.credentials import Credentials
from opsmap_agent.identity.renewal import Renewal
from opsmap_agent.identity.trust import BackendKeys
from opsmap_agent.jobs import launcher
from opsmap_agent.jobs.job import JobTools
from opsmap_agent.jobs.jobs import Jobs
from opsmap_agent.journal.committer import CommitError
from opsmap_agent.journal.journal import Journal
from opsmap_agent.native import NativeContext, Natives
from opsmap_agent.rules.policy import Policy
from opsmap_agent.rules.reach import Reach
from opsmap_agent.rules.remote_settings import SettingsInForce
from opsmap_agent.sessions.introduction import Introduction
from opsmap_agent.sessions.session import Desk, Session
from opsmap_agent.sessions.slots import Slot, Slots, in_order_of
from opsmap_agent.sessions.switchboard import Switchboard
from opsmap_agent.upkeep.instance import StartError, pid_file, single_instance, stay_small_while_running
from opsmap_agent.upkeep.upkeep import Upkeep
from opsmap_agent.upkeep.watchdog import RestartRecord
from opsmap_daemon import files, service_manager, tls
from opsmap_daemon.connection import Addresses, Dialler, GaveUpError, Keepalive, with_default_path
from opsmap_daemon.renewal import Renewer
from opsmap_daemon.sparing import SparingLog
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.errors import InvalidIdentityError
from opsmap_protocol.identity import identity_of_peer

_logger = logging.getLogger(__name__)

DEFAULT_PATH = "/agent/"
_LAUNCH_THREADS = 3
_PROBE_THREADS = 4
"""Two pools, so that probes stuck on a dead network file system never keep a command from starting."""


class Agent:
    """All parts of one agent. `run` once.

    Raises:
        ConfigurationError: certificates or keys that cannot be used or belong to somebody else.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._restarts = RestartRecord()
        self._credentials = Credentials(configuration)
        self._identity = self._credentials.identity
        self._keys = BackendKeys(configuration.tls.backend_ca_file, self._identity.organization_id)

    @property
    def agent_id(self) -> str:
        return self._identity.name

    async def run(self) -> None:
        """Serve until cancelled.

        Stopping is in order: the sessions close, so that no command comes any more; running sync commands get a
        moment to end; the journal is written out. Detached processes are not touched: the next life finds them.

        Raises:
            StartError: this host, or another agent, is in the way.
            GaveUpError: no gateway answered in `max_attempts` rounds.
        """
        tls.limit_read_buffer()
        self._prepare_host()
        with single_instance(self._configuration.buffer.path), pid_file(self._configuration.watchdog.pid_file):
            async with self._open_journal() as journal:
                with (
                    ThreadPoolExecutor(_LAUNCH_THREADS, "launch") as launching,
                    ThreadPoolExecutor(_PROBE_THREADS, "probe") as probing,
                ):
                    await self._serve(journal, launching, probing)

    async def _serve(self, journal: Journal, launching: ThreadPoolExecutor, probing: ThreadPoolExecutor) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                desk = self._assemble(journal, launching, probing, group)
                self._slots = self._make_slots(desk)
                self._renewer = Renewer(validity=lambda: self._credentials.validity, renew=desk.renewal.renew)
                await desk.health.load()
                await desk.keys.revocations.load(journal)
                await desk.dispatcher.recover()
                group.create_task(desk.health.resync_regularly(), name="health resync")
                group.create_task(self._clean_regularly(desk.jobs), name="cleaning")
                group.create_task(desk.jobs.limit_logs_regularly(), name="log limit")
                group.create_task(stay_small_while_running(), name="free memory")
                group.create_task(self._renewer.run(), name="renewal")
                group.create_task(desk.discoverer.run(), name="discovery")
                Upkeep(self._configuration, desk, self._restarts).start(group)
                service_manager.tell_ready()
                try:
                    await self._slots.run()
                finally:
                    await desk.dispatcher.stop()
        except ExceptionGroup as failures:
            # Giving up is no fault: it comes out as itself, for one clear line instead of a traceback.
            gave_up, others = failures.split(GaveUpError)
            if gave_up is None or others is not None:
                raise
            raise gave_up.exceptions[0] from None

    async def _renew_sessions(self) -> None:
        await self._slots.renew()

    def _make_slots(self, desk: Desk) -> Slots:
        settings = self._configuration.gateway
        urls = [with_default_path(url, DEFAULT_PATH) for url in dict.fromkeys((settings.url, *settings.fallback_urls))]
        if settings.sessions > 1:
            urls = in_order_of(self.agent_id, urls)

        async def hold(socket: ClientConnection, slot: Slot) -> None:
            gateway = slot.dialler.url
            session = Session(
                socket,
                desk,
                gateway=gateway,
                is_preferred=gateway == urls[0],
                on_goaway=slot.leave,
                on_begun=slot.has_begun.set,
            )
            slot.session = session
            await session.run(slot.dialler.established)

        return Slots(urls, settings.sessions, self._make_dialler, hold)

    async def _clean_regularly(self, jobs: Jobs) -> None:
        settings = self._configuration.detached_execution
        while True:
            try:
                await jobs.clean(timedelta(days=settings.log_retention_days))
            except (OSError, CommitError) as error:
                _logger.error("old jobs cannot be cleaned away: %s", error)
            await asyncio.sleep(settings.cleanup_interval_hours * 3600)

    @asynccontextmanager
    async def _open_journal(self) -> AsyncIterator[Journal]:
        try:
            settings = self._configuration.buffer
            journal = await Journal.open(settings.path, max_bytes=settings.max_size_mb * 1024 * 1024)
        except CommitError as error:
            raise StartError(f"the journal cannot be opened: {error}") from None
        try:
            yield journal
        finally:
            await journal.close()

    def _prepare_host(self) -> None:
        log_dir = self._configuration.detached_execution.log_dir
        try:
            log_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
        except OSError as error:
            raise StartError(f"detached_execution.log_dir {log_dir} cannot be made: {error.strerror}") from None
        missing = launcher.missing_tools()
        if missing:
            _logger.warning("detached commands cannot run on this host without: %s", ", ".join(missing))
        expected, actual = self._configuration.identity.run_as, getpass.getuser()
        if expected is not None and expected != actual:
            _logger.warning("running as %s, but identity.run_as is %s", actual, expected)

    def _assemble(
        self,
        journal: Journal,
        launching: ThreadPoolExecutor,
        probing: ThreadPoolExecutor,
        group: asyncio.TaskGroup,
    ) -> Desk:
        configuration = self._configuration
        policy = Policy(configuration)
        runner = SyncRunner(launching, configuration.scripts.max_output_bytes)
        prober = Prober(policy, runner, probing, Reach(configuration.checks.allowed_hosts))
        settings = SettingsInForce(configuration)
        health = HealthMonitor(journal=journal, prober=prober, group=group, on_settings=settings.apply)
        tools = JobTools(journal, CheckRunner(prober), health.poke, configuration.scripts.max_output_bytes)
        jobs = Jobs(
            settings=configuration.detached_execution, policy=policy, executor=launching, tools=tools, group=group
        )
        natives = Natives(
            NativeContext(prober, journal, jobs.folder_of, _private_paths(configuration)),
            configuration.native_commands,
            lambda: settings.disabled_natives,
        )
        execution = Execution(
            policy=policy,
            runner=runner,
            natives=natives,
            scripts=configuration.scripts,
            executor=probing,
        )
        dispatcher = Dispatcher(
            agent_id=self.agent_id,
            journal=journal,
            jobs=jobs,
            execution=execution,
            group=group,
        )
        introduction = Introduction(
            agent_id=self.agent_id,
            labels=configuration.agent.labels,
            journal=journal,
            active_count=lambda: dispatcher.active_count,
            natives=natives.offered,
        )
        switchboard, tally = Switchboard(), journal.tally
        journal.is_kept = lambda body: switchboard.in_use is not None or configuration.buffer.keeps_event(body)
        discoverer = Discoverer(
            agent_id=self.agent_id,
            settings=configuration.discovery,
            journal=journal,
            switchboard=switchboard,
            remote=settings,
            tally=tally,
            may_wait=configuration.buffer.keeps("discovery_result"),
        )
        renewal = Renewal(credentials=self._credentials, switchboard=switchboard, on_renewed=self._renew_sessions)
        return Desk(
            agent_id=self.agent_id,
            credentials=self._credentials,
            renewal=renewal,
            keys=self._keys,
            switchboard=switchboard,
            journal=journal,
            dispatcher=dispatcher,
            jobs=jobs,
            health=health,
            discoverer=discoverer,
            introduction=introduction,
            settings=settings,
            refusals=SparingLog(_logger, logging.WARNING),
            tally=tally,
        )

    def _make_dialler(self, urls: Sequence[str], addresses: Addresses) -> Dialler:
        settings = self._configuration.gateway
        return Dialler(
            urls=urls,
            addresses=addresses,
            tls_context=self._credentials.context,
            verify_peer=self._verify_gateway,
            reconnect=settings.reconnect,
            keepalive=Keepalive(settings.heartbeat_interval_secs, settings.heartbeat_timeout_secs),
            local_address=self._local_address,
        )

    def _verify_gateway(self, certificate: dict[str, Any]) -> None:
        """Whom the Gateway CA signed must be a gateway, and of our own organization."""
        gateway = identity_of_peer(certificate, PeerRole.GATEWAY)
        if gateway.organization_id != self._identity.organization_id:
            raise InvalidIdentityError("it is the gateway of another organization")

    def _local_address(self) -> tuple[str, int] | None:
        network = self._configuration.network
        address = network.bind_address
        if network.bind_interface is not None:
            address = description.interface_address(network.bind_interface)
            if address is None:
                # Judged like any failed connection: the interface may come up later.
                raise OSError(f"network.bind_interface {network.bind_interface} has no address")
        if address is None and network.bind_port == 0:
            return None
        return address or "0.0.0.0", network.bind_port  # noqa: S104 - nothing listens: the kernel chooses the address


def _private_paths(configuration: Configuration) -> tuple[str, ...]:
    """What no command may read: who has the key is this agent, and the journal holds commands as they came."""
    key = configuration.tls.key_file
    return (str(key), str(files.beside(key.resolve())), str(configuration.buffer.path))
