"""Gateways, agents, and the commands sent to them."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from apps.gateways.enums import OPEN_STATES, CommandState, Standing
from apps.orgs.models import Organization
from opsmap.lib.uuid7 import uuid7
from opsmap_protocol.enums import PeerRole


class Gateway(models.Model):
    """The door of one zone of one organization. Registered beforehand: only a known certificate may connect."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="gateways")
    gateway_id = models.CharField(max_length=127, help_text="Its name, as in its certificate.")
    # The one it showed last, or was given last if it never came; all that were issued are `Certificate` rows.
    certificate_sha256 = models.CharField(max_length=64, unique=True)
    zone = models.CharField(max_length=80, blank=True)
    labels = models.JSONField(default=dict)
    version = models.CharField(max_length=40, blank=True)
    load = models.JSONField(default=dict, blank=True, help_text="What it carries, as its last heartbeat says.")
    # Until it is enrolled anew. None of its certificates counts.
    revoked_at = models.DateTimeField(null=True, blank=True)
    # Not shown any more, until it connects again. Its row stays, for the sake of the history.
    removed_at = models.DateTimeField(null=True, blank=True)
    # The connection that counts; a newer one replaces it. Null while the gateway is away.
    session_id = models.UUIDField(null=True)
    connected_at = models.DateTimeField(null=True)
    last_seen_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["organization", "gateway_id"], name="gateway_id_unique")]

    def __str__(self) -> str:
        return self.gateway_id

    @property
    def is_online(self) -> bool:
        return self.session_id is not None

    @property
    def standing(self) -> Standing:
        return _standing(self)


class Agent(models.Model):
    """The agent of one host. Registers itself through its gateway, which has verified its certificate."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="agents")
    gateway = models.ForeignKey(Gateway, on_delete=models.SET_NULL, null=True, related_name="agents")
    agent_id = models.CharField(max_length=127)
    hostname = models.CharField(max_length=253)
    certificate_sha256 = models.CharField(max_length=64, blank=True)
    # DER in base64, as it proved itself last: what it says later, through a gateway's buffer, is checked by it.
    certificate = models.TextField(blank=True)
    os = models.JSONField(default=dict)
    labels = models.JSONField(default=dict)
    capabilities = models.JSONField(default=list)
    version = models.CharField(max_length=40, blank=True)
    load = models.JSONField(default=dict, help_text="The last heartbeat.")
    # What the backend sets on it, as `RemoteSettings` of the protocol.
    settings = models.JSONField(default=dict, blank=True)
    # It is watched, but no command is sent to it.
    quarantined_at = models.DateTimeField(null=True, blank=True)
    quarantine_reason = models.CharField(max_length=300, blank=True)
    # Until it is enrolled anew. None of its certificates counts, and its connections were cut.
    revoked_at = models.DateTimeField(null=True, blank=True)
    # Not shown any more, until it connects again. Its row stays: what was run on it is history.
    removed_at = models.DateTimeField(null=True, blank=True)
    # The session that counts, one of `sessions`; null while the agent is away. `token` is what the agent's frames of
    # that session carry (empty: its gateway came anew, and has a moment to bring it back), and `credits` how many
    # commands may be on their way by it at once. `connected_at` is when this session became the one that counts.
    session_id = models.CharField(max_length=64, null=True)
    token = models.CharField(max_length=64, blank=True)
    credits = models.PositiveIntegerField(default=0)
    connected_at = models.DateTimeField(null=True)
    last_seen_at = models.DateTimeField(null=True)
    # Events of the journal `incarnation` are stored up to `acked_seq`.
    incarnation = models.CharField(max_length=64, blank=True)
    acked_seq = models.PositiveBigIntegerField(default=0)
    # How many events its full buffer had to drop, of kinds that may go, and when it last told of some.
    lost_events = models.PositiveBigIntegerField(default=0)
    lost_events_at = models.DateTimeField(null=True, blank=True)
    # When what its gateway's link has to tell it changed: the session in use, or the health checks.
    changed_at = models.DateTimeField(null=True)
    # The health checks that the app above wants run on this host.
    health_checks = models.JSONField(default=list)
    health_checks_revision = models.CharField(max_length=64, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["organization", "agent_id"], name="agent_id_unique")]
        indexes = [
            models.Index(fields=["organization", "hostname"], name="agent_by_hostname"),
            models.Index(fields=["gateway", "changed_at"], name="agent_by_change"),
            # The safety net looks for them every few seconds, and there are seldom any.
            models.Index(fields=["id"], condition=Q(quarantined_at__isnull=False), name="agent_in_quarantine"),
        ]

    def __str__(self) -> str:
        return self.agent_id

    @property
    def is_online(self) -> bool:
        return self.session_id is not None

    @property
    def standing(self) -> Standing:
        return _standing(self)


def _standing(peer: Gateway | Agent) -> Standing:
    """What says most comes first."""
    if peer.removed_at is not None:
        return Standing.REMOVED
    if peer.revoked_at is not None:
        return Standing.REVOKED
    if isinstance(peer, Agent) and peer.quarantined_at is not None:
        return Standing.QUARANTINED
    return Standing.ONLINE if peer.is_online else Standing.OFFLINE


class AgentSession(models.Model):
    """An agent's connection to one gateway, proven by its answer to a challenge. One is in use, the others stand by."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")
    agent = models.ForeignKey(Agent, on_delete=models.CASCADE, related_name="sessions")
    gateway = models.ForeignKey(Gateway, on_delete=models.CASCADE, related_name="agent_sessions")
    session_id = models.CharField(max_length=64)
    token = models.CharField(max_length=64)
    is_preferred = models.BooleanField(default=False)
    is_draining = models.BooleanField(default=False, help_text="Its gateway stops soon: the last choice.")
    credits = models.PositiveIntegerField()
    opened_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["agent", "gateway"], name="agent_session_unique")]

    def __str__(self) -> str:
        return f"{self.agent_id} at {self.gateway_id}"


class Certificate(models.Model):
    """A certificate of a gateway or agent: issued here, or shown by it and issued by our authorities.

    Rows are kept when the gateway or agent is removed: a revoked certificate stays revoked.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")
    role = models.CharField(max_length=7, choices=[(role, role) for role in (PeerRole.GATEWAY, PeerRole.AGENT)])
    name = models.CharField(max_length=127, help_text="The gateway id or agent id in it.")
    fingerprint = models.CharField(max_length=64, unique=True, help_text="SHA-256 of the certificate, hexadecimal.")
    serial = models.CharField(max_length=40, help_text="Hexadecimal.")
    not_before = models.DateTimeField()
    not_after = models.DateTimeField()
    created_at = models.DateTimeField(auto_now_add=True)
    enrolment_token = models.ForeignKey("EnrolmentToken", on_delete=models.SET_NULL, null=True, related_name="+")
    revoked_at = models.DateTimeField(null=True, blank=True)
    revocation_reason = models.CharField(max_length=300, blank=True)
    # When people were told that it ends soon and none has followed it.
    expiry_told_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [
            models.Index(fields=["organization", "role", "name", "-not_after"], name="certificate_by_name"),
            # Every link looks for the newest each second, and most certificates are never revoked.
            models.Index(
                fields=["organization", "revoked_at"],
                condition=Q(revoked_at__isnull=False),
                name="certificate_by_revocation",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.role} {self.name}, {self.fingerprint[:16]}"


class EnrolmentToken(models.Model):
    """What a new gateway or agent shows once to get its first certificate. Only its hash is kept.

    What it is good for: gateways or agents, names like `name_pattern` (`*` and `?`), at `gateway` if it says one.
    With `may_replace` it also serves to give a known name a new certificate, which revokes the former ones.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="enrolment_tokens")
    role = models.CharField(max_length=7, choices=[(role, role) for role in (PeerRole.GATEWAY, PeerRole.AGENT)])
    description = models.CharField(max_length=200, blank=True)
    prefix = models.CharField(max_length=24, help_text="The first characters, so that people recognise it.")
    digest = models.CharField(max_length=64, unique=True)
    name_pattern = models.CharField(max_length=127, default="*")
    gateway = models.ForeignKey(Gateway, on_delete=models.CASCADE, null=True, blank=True, related_name="+")
    zone = models.CharField(max_length=80, blank=True, help_text="Of gateways that come by it.")
    may_replace = models.BooleanField(default=False)
    max_uses = models.PositiveIntegerField(default=1)
    use_count = models.PositiveIntegerField(default=0)
    created_by = models.JSONField(default=dict)
    created_at = models.DateTimeField(auto_now_add=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(use_count__lte=models.F("max_uses")), name="enrolment_uses_in_limit")
        ]

    def __str__(self) -> str:
        return f"{self.prefix}… for {self.role}s"


class AgentDiscovery(models.Model):
    """What an agent found out about its host most recently."""

    agent = models.OneToOneField(Agent, on_delete=models.CASCADE, primary_key=True, related_name="discovery")
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")
    discovery_id = models.CharField(max_length=64)
    discovered_at = models.DateTimeField()
    findings = models.JSONField(default=dict, help_text="By kind, and by the key of each finding within it.")
    faults = models.JSONField(default=dict, help_text="Why a kind could not be looked at, by kind.")

    def __str__(self) -> str:
        return f"{self.agent_id} at {self.discovered_at}"


class DiscoveryRequest(models.Model):
    """What an agent was asked last to find out. Repeated while it is open; an agent that is away hears it later.

    `discovery_id` comes back with the answer. No `types` means all. `is_full`: we do not have what the agent told
    before, so the answer must not build on it.
    """

    agent = models.OneToOneField(Agent, on_delete=models.CASCADE, primary_key=True, related_name="discovery_request")
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")
    discovery_id = models.CharField(max_length=64)
    types = models.JSONField(default=list)
    is_full = models.BooleanField(default=False)
    is_open = models.BooleanField(default=True)
    requested_at = models.DateTimeField()
    told_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [models.Index(fields=["told_at"], condition=Q(is_open=True), name="discovery_to_request")]

    def __str__(self) -> str:
        return f"{self.discovery_id} of {self.agent_id}"


class Broadcast(models.Model):
    """One command that a person sent to many agents. Which ones was decided when it was asked for: see its commands.

    `left_out` are the agent ids of those that the filter means and that got none: in quarantine, or revoked.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")
    name = models.CharField(max_length=80)
    filter = models.JSONField()
    left_out = models.JSONField(default=list)
    spec = models.JSONField()
    execution = models.JSONField()
    timeout_ms = models.PositiveIntegerField()
    requested_by = models.JSONField(default=dict)
    idempotency_key = models.CharField(max_length=200, null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "idempotency_key"],
                condition=Q(idempotency_key__isnull=False),
                name="broadcast_idempotency",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} to many"


class Command(models.Model):
    """One thing to run once on one agent, and everything known of how it went.

    `subject` is whatever the caller's command is about; `epoch` orders the commands of one subject.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    # Without the index that Django makes by itself: those of the history begin with the same column.
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+", db_index=False)
    agent = models.ForeignKey(Agent, on_delete=models.CASCADE, related_name="commands", db_index=False)
    broadcast = models.ForeignKey(Broadcast, on_delete=models.CASCADE, null=True, related_name="commands")
    name = models.CharField(max_length=80)
    subject = models.UUIDField(null=True)
    epoch = models.PositiveBigIntegerField(default=0)
    spec = models.JSONField()
    execution = models.JSONField()
    timeout_ms = models.PositiveIntegerField()
    not_after = models.DateTimeField()
    requested_by = models.JSONField(default=dict)
    idempotency_key = models.CharField(max_length=200, null=True)

    # Delivery
    state = models.CharField(max_length=12, choices=CommandState.choices, default=CommandState.QUEUED)
    lease_until = models.DateTimeField(null=True)
    fence = models.PositiveIntegerField(default=0)
    is_cancel_requested = models.BooleanField(default=False)
    # Until when nobody tells the agent again that the command shall end; null: tell it now.
    cancel_lease_until = models.DateTimeField(null=True)

    # What the host reported
    detail = models.TextField(blank=True)
    result = models.JSONField(null=True)
    job_id = models.CharField(max_length=80, blank=True)
    check_result = models.JSONField(null=True)
    exit_code = models.IntegerField(null=True)
    pid = models.PositiveIntegerField(null=True)
    log_tail = models.TextField(blank=True)
    # How much it printed, in characters: {"stdout": {"total": 70000, "kept": 65536}}, for streams kept in `outputs`.
    output = models.JSONField(default=dict)
    duration_ms = models.PositiveIntegerField(null=True)

    created_at = models.DateTimeField(auto_now_add=True)
    sent_at = models.DateTimeField(null=True)
    received_at = models.DateTimeField(null=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    process_exited_at = models.DateTimeField(null=True)
    # When the agent last spoke of it.
    heard_at = models.DateTimeField(null=True)
    # When to ask the agent about it: a running job, or a command whose fate is unknown.
    next_poll_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            # The same key of the same person is the same command.
            models.UniqueConstraint(
                fields=["organization", "idempotency_key"],
                condition=Q(idempotency_key__isnull=False),
                name="command_idempotency",
            ),
        ]
        indexes = [
            # The dispatcher looks for the open commands of its agents, oldest first; closed ones are never in its way.
            models.Index(
                fields=["agent", "id"],
                condition=Q(state__in=[CommandState.QUEUED, CommandState.SENT]),
                name="command_to_dispatch",
            ),
            models.Index(
                fields=["cancel_lease_until"],
                condition=Q(is_cancel_requested=True, state__in=sorted(OPEN_STATES)),
                name="command_to_cancel",
            ),
            models.Index(fields=["next_poll_at"], condition=Q(next_poll_at__isnull=False), name="command_to_poll"),
            models.Index(fields=["not_after"], condition=Q(state__in=sorted(OPEN_STATES)), name="command_to_expire"),
            models.Index(fields=["subject", "-id"], name="command_by_subject"),
            # The history is read backwards, of everything or of one agent.
            models.Index(fields=["organization", "-id"], name="command_by_organization"),
            models.Index(fields=["agent", "-id"], name="command_by_agent"),
        ]

    def __str__(self) -> str:
        return f"{self.name} on {self.agent_id}"

    @property
    def is_open(self) -> bool:
        return self.state in OPEN_STATES


class CommandOutput(models.Model):
    """A piece of what a command printed. `offset` counts characters of its stream."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")
    command = models.ForeignKey(Command, on_delete=models.CASCADE, related_name="outputs")
    stream = models.CharField(max_length=6)
    offset = models.PositiveIntegerField()
    text = models.TextField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["command", "stream", "offset"], name="command_output_once")]

    def __str__(self) -> str:
        return f"{self.stream} of {self.command_id} from {self.offset}"
