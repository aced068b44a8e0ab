"""Tokens and first certificates: who gets one, who does not and why, and that a use is spent once."""

from __future__ import annotations

import binascii
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from django.db import IntegrityError, connection
from django.utils import timezone

from apps.audit.models import AuditEvent
from apps.gateways.actions.enrolment import EnrolmentRefusedError, enroll
from apps.gateways.actions.enrolment_throttle import BY_ADDRESS, BY_GATEWAY, MAX_PLACES, WINDOW_S, RefusalThrottle
from apps.gateways.actions.enrolment_tokens import (
    InvalidEnrolmentTokenError,
    create_enrolment_token,
    revoke_enrolment_token,
)
from apps.gateways.actions.revocation import revoke_agent
from apps.gateways.models import Agent, Certificate, EnrolmentToken, Gateway
from apps.gateways.pki.authorities import is_issued_by, read_root, read_trusted
from apps.gateways.pki.naming import fingerprint, hosts_of, uris_of
from apps.gateways.tests.factories import SYSTEM, failing_audit, make_agent, make_gateway
from apps.gateways.tests.requests import as_base64, certificate_in, new_key, request_for
from apps.gateways.tests.sockets import LinkPki
from conftest import Cast
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.identity import Identity
from opsmap_trust.enrolment_tokens import EnrolmentTokenText


@pytest.fixture(autouse=True)
def _fresh_throttles(pki: LinkPki) -> None:
    BY_ADDRESS.forget()
    BY_GATEWAY.forget()


def make_token(cast: Cast, role: PeerRole = PeerRole.AGENT, **scope: Any) -> str:
    return create_enrolment_token(organization_id=cast.acme.pk, role=role, actor=SYSTEM, **scope)[1]


def enroll_agent(token: str, name: str = "srv-1", **changes: Any) -> Any:
    wish = {"hostname": f"{name}.example", "csr": request_for(new_key()), "address": "10.0.0.7"} | changes
    return enroll(token=token, role=PeerRole.AGENT, name=name, **wish)


def refusal(*arguments: Any, **changes: Any) -> str:
    with pytest.raises(EnrolmentRefusedError) as refused:
        enroll_agent(*arguments, **changes)
    return refused.value.code


# Tokens


def test_of_a_token_only_its_hash_is_kept_and_it_names_the_root(cast: Cast, pki: LinkPki) -> None:
    token, text = create_enrolment_token(organization_id=cast.acme.pk, role=PeerRole.AGENT, actor=SYSTEM)
    parsed = EnrolmentTokenText.parse(text)
    assert parsed.names_root(read_root(pki.folder / "ca").public_bytes(Encoding.DER))
    stored = {field.name: str(getattr(token, field.name)) for field in EnrolmentToken._meta.concrete_fields}
    secret = text.removeprefix("opsmap-enrol-").partition(".")[0]
    assert stored["digest"] == parsed.digest
    assert not any(secret in value for value in stored.values())
    [event] = AuditEvent.objects.filter(action="enrolment_token.created")
    assert secret not in str((event.target, event.details))
    assert token.prefix == text[: len(token.prefix)]


@pytest.mark.parametrize(
    "scope",
    [
        {"role": PeerRole.BACKEND},
        {"name_pattern": "srv/*"},
        {"name_pattern": ""},
        {"max_uses": 0},
        {"max_uses": 10_001},
        {"life": timedelta(0)},
        {"life": timedelta(days=91)},
    ],
)
def test_a_token_that_is_good_for_nothing_or_too_much_is_not_made(cast: Cast, scope: dict[str, Any]) -> None:
    with pytest.raises(InvalidEnrolmentTokenError):
        make_token(cast, **scope)
    assert not EnrolmentToken.objects.exists()
    assert not AuditEvent.objects.filter(action="enrolment_token.created").exists()


def test_a_token_is_not_made_for_another_organizations_gateway(cast: Cast) -> None:
    with pytest.raises(InvalidEnrolmentTokenError, match="unknown"):
        make_token(cast, gateway=make_gateway(cast.umbrella))


def test_revoking_a_token_twice_is_told_once(cast: Cast) -> None:
    token, _ = create_enrolment_token(organization_id=cast.acme.pk, role=PeerRole.AGENT, actor=SYSTEM)
    revoke_enrolment_token(token=token, actor=SYSTEM)
    first = token.revoked_at
    revoke_enrolment_token(token=token, actor=SYSTEM)
    assert token.revoked_at == first is not None
    assert AuditEvent.objects.filter(action="enrolment_token.revoked").count() == 1


# First certificates


def test_an_agent_gets_a_certificate_of_what_it_asked_for_and_nothing_that_its_request_says(
    cast: Cast, pki: LinkPki
) -> None:
    key = new_key()
    enrolled = enroll_agent(make_token(cast), csr=request_for(key, "root"))
    leaf, issuer = map(certificate_in, enrolled.chain)
    assert issuer == read_trusted(pki.folder / "ca", PeerRole.AGENT)[0]
    assert is_issued_by(leaf, issuer)
    assert leaf.public_key() == key.public_key()
    assert uris_of(leaf) == [Identity(str(cast.acme.pk), PeerRole.AGENT, "srv-1").uri]
    assert hosts_of(leaf) == ["srv-1.example"]
    row = Certificate.objects.get()
    assert (row.fingerprint, row.role, row.name, row.organization) == (fingerprint(leaf), "agent", "srv-1", cast.acme)
    assert row.enrolment_token == EnrolmentToken.objects.get()
    [event] = AuditEvent.objects.filter(action="agent.enrolled")
    assert (event.organization_id, event.details["certificateSha256"]) == (cast.acme.pk, row.fingerprint)
    assert event.actor["ip"] == "10.0.0.7"


def test_a_gateway_is_known_from_its_enrolment_on(cast: Cast) -> None:
    token = make_token(cast, PeerRole.GATEWAY, zone="paris")
    wish = {"name": "gw-9", "hostname": "gw-9.example,10.1.0.1", "csr": request_for(new_key(seals=False))}
    enrolled = enroll(token=token, role=PeerRole.GATEWAY, **wish)
    leaf = certificate_in(enrolled.chain[0])
    gateway = Gateway.objects.get(gateway_id="gw-9")
    assert (gateway.organization, gateway.zone, gateway.certificate_sha256) == (cast.acme, "paris", fingerprint(leaf))
    assert hosts_of(leaf) == ["gw-9.example", "10.1.0.1"]


def test_a_use_is_spent_only_with_a_certificate(cast: Cast, pki: LinkPki) -> None:
    token = make_token(cast)
    assert refusal(token, csr="bm90aGluZw==") == "bad_request"
    (pki.folder / "ca" / "agent.key").rename(pki.folder / "ca" / "elsewhere")
    try:
        assert refusal(token) == "unavailable"
    finally:
        (pki.folder / "ca" / "elsewhere").rename(pki.folder / "ca" / "agent.key")
    with failing_audit(), pytest.raises(IntegrityError):
        enroll_agent(token)
    assert EnrolmentToken.objects.get().use_count == 0
    assert not Certificate.objects.exists()
    enroll_agent(token)
    assert EnrolmentToken.objects.get().use_count == 1


def test_a_replayed_enrolment_is_refused(cast: Cast) -> None:
    token, csr = make_token(cast, may_replace=True), request_for(new_key())
    enroll_agent(token, csr=csr)
    assert refusal(token, csr=csr) == "token_spent"
    assert Certificate.objects.filter(revoked_at=None).count() == 1


def test_each_refusal_says_why_and_is_audited_without_the_token(cast: Cast) -> None:
    here, there = make_gateway(cast.acme, "gw-1"), make_gateway(cast.acme, "gw-2")
    expired = make_token(cast)
    EnrolmentToken.objects.update(expires_at=timezone.now())
    revoked, text = create_enrolment_token(organization_id=cast.acme.pk, role=PeerRole.AGENT, actor=SYSTEM)
    revoke_enrolment_token(token=revoked, actor=SYSTEM)
    unknown = str(EnrolmentTokenText(b"x" * 32, b"y" * 32))
    make_agent(here, "srv-7")
    cases: list[tuple[str, str, dict[str, Any]]] = [
        ("token_unknown", unknown, {}),
        ("token_unknown", make_token(cast), {"gateway": make_gateway(cast.umbrella)}),
        ("token_expired", expired, {}),
        ("token_revoked", text, {}),
        ("wrong_role", make_token(cast, PeerRole.GATEWAY), {}),
        ("wrong_name", make_token(cast, name_pattern="db-*"), {}),
        ("wrong_gateway", make_token(cast, gateway=there), {"gateway": here}),
        ("name_taken", make_token(cast), {"name": "srv-7"}),
        ("bad_request", "opsmap-enrol-nonsense", {}),
    ]
    for code, token, changes in cases:
        assert refusal(token, **changes) == code
        event = AuditEvent.objects.filter(action="enrolment.refused").latest("id")
        assert event.details["code"] == code
        assert token[len("opsmap-enrol-") :][:43] not in str((event.target, event.details, event.actor))
    assert not Certificate.objects.filter(enrolment_token__isnull=False).exists()
    assert not EnrolmentToken.objects.exclude(use_count=0).exists()


def test_what_another_organizations_gateway_is_told_is_not_in_the_tokens_trail(cast: Cast) -> None:
    stranger = make_gateway(cast.umbrella)
    assert refusal(make_token(cast), gateway=stranger) == "token_unknown"
    [event] = AuditEvent.objects.filter(action="enrolment.refused")
    assert event.organization_id == cast.umbrella.pk
    assert event.target == {"type": "enrolmentToken"}


HTML = "<script>alert(1)</script>" * 400


@pytest.mark.parametrize(
    "changes",
    [
        {"name": HTML},
        {"name": ""},
        {"name": "../root"},
        {"name": "srv-1\n"},
        {"hostname": HTML},
        {"hostname": ""},
        {"hostname": "a b"},
        {"hostname": "a,b"},
        {"csr": ""},
        {"csr": "é"},
        {"csr": "A" * 20_000},
        {"csr": request_for(new_key(seals=False))},
    ],
    ids=lambda changes: f"{next(iter(changes))} {str(next(iter(changes.values())))[:20]!r}",
)
def test_bad_input_is_refused_in_few_words(cast: Cast, changes: dict[str, str]) -> None:
    with pytest.raises(EnrolmentRefusedError) as refused:
        enroll_agent(make_token(cast), **changes)
    assert refused.value.code == "bad_request"
    assert len(str(refused.value)) < 200
    assert "<" not in str(refused.value)
    [event] = AuditEvent.objects.filter(action="enrolment.refused")
    assert len(str(event.details)) < 500


@pytest.mark.parametrize("kind", ["rsa", "p384"])
def test_a_gateways_key_has_to_be_one_that_we_issue_for(cast: Cast, kind: str) -> None:
    key = rsa.generate_private_key(65537, 2048) if kind == "rsa" else ec.generate_private_key(ec.SECP384R1())
    with pytest.raises(EnrolmentRefusedError, match="a gateway has to be P-256 or Ed25519"):
        enroll(
            token=make_token(cast, PeerRole.GATEWAY),
            role=PeerRole.GATEWAY,
            name="gw-9",
            hostname="gw-9",
            csr=request_for(key),
        )


def test_a_request_that_its_key_did_not_sign_is_refused(cast: Cast) -> None:
    """Somebody else's key, with a signature of one's own in the place of its."""
    damaged = bytearray(binascii.a2b_base64(request_for(new_key())))
    damaged[-1] ^= 1
    with pytest.raises(EnrolmentRefusedError, match="not signed by the key"):
        enroll_agent(make_token(cast), csr=as_base64(bytes(damaged)))


# Names that are there already


def test_a_token_that_may_replace_revokes_what_was_before(cast: Cast) -> None:
    enroll_agent(make_token(cast))
    first = Certificate.objects.get()
    enroll_agent(make_token(cast, may_replace=True))
    first.refresh_from_db()
    assert first.revoked_at is not None
    assert Certificate.objects.filter(revoked_at=None).count() == 1
    event = AuditEvent.objects.filter(action="agent.enrolled").latest("id")
    assert event.details["replaced"] == [first.fingerprint]


def test_a_revoked_agent_may_be_enrolled_anew(cast: Cast) -> None:
    agent = make_agent(make_gateway(cast.acme), "srv-1")
    revoke_agent(agent=agent.row, actor=SYSTEM, reason="stolen")
    enroll_agent(make_token(cast))
    assert Agent.objects.get().revoked_at is None
    assert Certificate.objects.filter(revoked_at=None).count() == 1


def test_the_same_name_in_another_organization_is_another(cast: Cast) -> None:
    make_agent(make_gateway(cast.umbrella), "srv-1")
    enroll_agent(make_token(cast))


# Races


def in_threads(count: int, work: Any) -> list[str]:
    """What each of so many at once came to: "" or the refusal's code."""
    barrier = threading.Barrier(count)

    def one(number: int) -> str:
        barrier.wait(20)
        try:
            work(number)
        except EnrolmentRefusedError as error:
            return error.code
        finally:
            connection.close()
        return ""

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def test_of_fifty_at_once_as_many_win_as_there_are_uses(transactional_db: None, cast: Cast) -> None:
    token = make_token(cast, max_uses=3)
    csr = request_for(new_key())
    came_to = in_threads(50, lambda number: enroll_agent(token, f"srv-{number}", csr=csr, address=f"10.0.0.{number}"))
    assert sorted(came_to) == [""] * 3 + ["token_spent"] * 47
    assert Certificate.objects.count() == 3
    assert EnrolmentToken.objects.get().use_count == 3


def test_two_tokens_for_one_name_at_once_make_one_certificate(transactional_db: None, cast: Cast) -> None:
    tokens = [make_token(cast) for _ in range(8)]
    came_to = in_threads(8, lambda number: enroll_agent(tokens[number]))
    assert sorted(came_to) == ["", *["name_taken"] * 7]
    assert Certificate.objects.count() == 1
    assert sum(EnrolmentToken.objects.values_list("use_count", flat=True)) == 1


# Too many refusals


def test_after_many_refusals_nobody_from_there_is_heard_for_a_while(cast: Cast) -> None:
    good = make_token(cast)
    for _ in range(20):
        assert refusal("opsmap-enrol-guess", address="10.0.0.66") == "bad_request"
    with pytest.raises(EnrolmentRefusedError) as refused:
        enroll_agent(good, address="10.0.0.66")
    assert refused.value.code == "too_many_refusals"
    assert 0 < refused.value.wait_s <= WINDOW_S
    assert AuditEvent.objects.filter(action="enrolment.refused").count() == 20
    enroll_agent(good, address="10.0.0.7")


def test_the_throttle_forgets_with_time_and_is_bounded() -> None:
    now_s = 100.0
    throttle = RefusalThrottle(2, clock=lambda: now_s)
    throttle.note("a")
    assert throttle.wait_s("a") == 0
    throttle.note("a")
    assert throttle.wait_s("a") == WINDOW_S
    now_s += WINDOW_S
    assert throttle.wait_s("a") == 0
    for number in range(MAX_PLACES + 5):
        throttle.note(str(number))
    assert len(throttle._counts) == MAX_PLACES
