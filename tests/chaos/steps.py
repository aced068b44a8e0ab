"""The steps of DESIGN 3 at which a process can be made to die: where they are in the product of today."""

from __future__ import annotations

from typing import Any

from tests.chaos.hooks import Step, Where

_COMMAND = '"type":"command"'
_EVENTS = '"type":"events"'
_ACK = '"type":"events_ack"'


def _carries(kind: str) -> Any:
    """Whether one of the arguments is a frame of that type."""
    return lambda *args, **kwargs: any(isinstance(each, str) and kind in each for each in (*args, *kwargs.values()))


def _records(*kinds: str) -> Any:
    """Whether `tables.record` is about to store one of these events."""

    def applies(_db: Any, bodies: Any, *_rest: Any) -> bool:
        return any(body.type in kinds for body in bodies)

    return applies


_WEB = "apps.audit.actions:create_with_event"
_CLAIM = "apps.gateways.actions.claims:claim_commands"
_INGEST = "apps.gateways.actions.reports:ingest_reports"
_SEND = "apps.gateways.consumers:LinkConsumer.send"
_TO_AGENT = "opsmap_gateway.router:Router.backend_frame"
_TO_BACKEND = "opsmap_gateway.router:Router.agent_frame"
_ADMIT = "opsmap_agent.journal.tables:admit"
_RECORD = "opsmap_agent.journal.tables:record"
_FORGET = "opsmap_agent.journal.tables:forget_events"
_LAUNCH = "opsmap_agent.jobs.launcher:launch"
_RUN = "opsmap_agent.commands.execution:Execution.run"
_PUMP = "opsmap_agent.sessions.session:Session._send_events"

_END = _records("command_result", "async_status")
_START = _records("async_started")

STEPS = (
    # Each is one statement, which commits by itself.
    Step("request-before", "web", _WEB, Where.ENTER),
    Step("request-after", "web", _WEB, Where.RETURN),
    Step("claim-before", "link", _CLAIM, Where.ENTER),
    Step("claim-after", "link", _CLAIM, Where.RETURN),
    Step("send-before", "link", _SEND, Where.ENTER, _carries(_COMMAND)),
    Step("send-after", "link", _SEND, Where.RETURN, _carries(_COMMAND)),
    Step("ingest-before-commit", "link", _INGEST, Where.BEFORE_COMMIT),
    Step("ingest-after-commit", "link", _INGEST, Where.AFTER_COMMIT),
    Step("ack-before", "link", _SEND, Where.ENTER, _carries(_ACK)),
    Step("ack-after", "link", _SEND, Where.RETURN, _carries(_ACK)),
    Step("gateway-command-before", "gateway", _TO_AGENT, Where.ENTER, _carries(_COMMAND)),
    Step("gateway-command-after", "gateway", _TO_AGENT, Where.RETURN, _carries(_COMMAND)),
    Step("gateway-events-before", "gateway", _TO_BACKEND, Where.ENTER, _carries(_EVENTS)),
    Step("gateway-events-after", "gateway", _TO_BACKEND, Where.RETURN, _carries(_EVENTS)),
    Step("agent-run-before", "agent", _RUN, Where.ENTER),
    Step("agent-run-after", "agent", _RUN, Where.RETURN),
    Step("agent-launch-before", "agent", _LAUNCH, Where.ENTER),
    Step("agent-launch-after", "agent", _LAUNCH, Where.RETURN),
    Step("agent-events-before", "agent", _PUMP, Where.ENTER),
    Step("agent-events-after", "agent", _PUMP, Where.RETURN),
    Step("agent-ack-received", "agent", "opsmap_agent.journal.journal:Journal.acknowledge", Where.ENTER),
)

AGENT_JOURNAL_STEPS = (
    Step("agent-admit-before-commit", "agent", _ADMIT, Where.BEFORE_COMMIT),
    Step("agent-admit-after-commit", "agent", _ADMIT, Where.AFTER_COMMIT),
    Step("agent-started-before-commit", "agent", _RECORD, Where.BEFORE_COMMIT, _START),
    Step("agent-started-after-commit", "agent", _RECORD, Where.AFTER_COMMIT, _START),
    Step("agent-end-before-commit", "agent", _RECORD, Where.BEFORE_COMMIT, _END),
    Step("agent-end-after-commit", "agent", _RECORD, Where.AFTER_COMMIT, _END),
    Step("agent-forget-before-commit", "agent", _FORGET, Where.BEFORE_COMMIT),
    Step("agent-forget-after-commit", "agent", _FORGET, Where.AFTER_COMMIT),
)
