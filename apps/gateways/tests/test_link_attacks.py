"""Attacks on the link server, a real process behind real TLS: refused or bounded, while others work on."""

from __future__ import annotations

import itertools
import logging
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from apps.gateways.models import Gateway
from apps.gateways.tests.factories import AT, gateway_hello, health_changed, queue, wait_until
from apps.gateways.tests.link_process import (
    ELSEWHERE,
    LinkProcess,
    RawGateway,
    TalkingGateway,
    link_process,
    plain_connection,
    talking_gateway,
)
from apps.gateways.tests.sockets import LinkPki
from conftest import Cast
from opsmap_protocol import codec, messages

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]

logger = logging.getLogger(__name__)

MEMORY_MB = 200
"""How much an attack may make the process grow."""

PROMPT_S = 3.0
"""How long a command of an honest gateway may take meanwhile."""


@pytest.fixture
def link(pki: LinkPki, transactional_db: None, tmp_path: Path) -> Iterator[LinkProcess]:
    with link_process(pki, tmp_path / "link.log") as running:
        yield running


@pytest.fixture
def honest(link: LinkProcess, cast: Cast) -> Iterator[TalkingGateway]:
    with talking_gateway(link, cast.acme, "gw-1") as gateway:
        gateway.complete_command()
        yield gateway


@pytest.fixture(autouse=True)
def memory(link: LinkProcess, honest: TalkingGateway) -> Iterator[None]:
    """Whatever the attack was, the process has not grown by more than it may, and the honest gateway works."""
    before_mb = link.rss_mb
    yield
    took_s = honest.complete_command()
    grown_mb = link.rss_mb - before_mb
    logger.info("%.0f MB before, %.0f more after; a command took %.3f s", before_mb, grown_mb, took_s)
    assert grown_mb < MEMORY_MB


def evil(link: LinkProcess, cast: Cast, **arguments: str) -> RawGateway:
    """A gateway of another organization, registered and taken over."""
    return RawGateway(link, link.context(cast.umbrella, "gw-evil"), **arguments)


def is_gone() -> bool:
    return not Gateway.objects.filter(gateway_id="gw-evil", session_id__isnull=False).exists()


def test_ten_thousand_connections_without_a_word(link: LinkProcess, cast: Cast, honest: TalkingGateway) -> None:
    with ExitStack() as stack:
        for _ in range(10_000):
            stack.enter_context(plain_connection(link))
        assert honest.complete_command() < PROMPT_S
        with talking_gateway(link, cast.acme, "gw-2") as newcomer:
            assert newcomer.complete_command() < PROMPT_S


def test_a_certificate_holder_that_says_nothing_has_to_leave(
    link: LinkProcess, cast: Cast, honest: TalkingGateway
) -> None:
    context = link.context(cast.umbrella, "gw-evil")
    with ExitStack() as stack:
        silent = [stack.enter_context(RawGateway(link, context)) for _ in range(50)]
        began_s = time.monotonic()
        assert honest.complete_command() < PROMPT_S
        for each in silent:
            each.close_code(within_s=13 - (time.monotonic() - began_s))
    assert is_gone()


def test_a_frame_that_says_it_has_a_gigabyte(link: LinkProcess, cast: Cast, honest: TalkingGateway) -> None:
    for claimed in (2**30, 2**62):
        with evil(link, cast) as gateway:
            gateway.send(b"{", claimed_length=claimed)
            assert gateway.close_code(within_s=5) == 1009


def test_a_message_of_endless_pieces(link: LinkProcess, cast: Cast, honest: TalkingGateway) -> None:
    """No frame is too large, but the message that they make."""
    with evil(link, cast) as gateway:
        gateway.send(b'{"a":"', first_byte=0x01)
        with suppress(OSError):
            for _ in range(200):
                gateway.send(b"x" * 1_000_000, first_byte=0x00)
        assert gateway.close_code(within_s=5) in {1009, 1006}
    assert honest.complete_command() < PROMPT_S


def test_a_compressed_bomb(link: LinkProcess, cast: Cast, honest: TalkingGateway) -> None:
    with evil(link, cast, extensions="permessage-deflate; client_max_window_bits") as gateway:
        assert b"permessage-deflate" not in gateway.answer
        packer = zlib.compressobj(9, wbits=-15)
        bomb = b"".join(packer.compress(bytes(10_000_000)) for _ in range(50)) + packer.flush()
        gateway.send(bomb, first_byte=0xC1)
        assert gateway.close_code(within_s=5) == 1002


def test_a_gateway_that_does_not_read_while_there_is_much_to_say(
    link: LinkProcess, cast: Cast, honest: TalkingGateway
) -> None:
    with talking_gateway(link, cast.umbrella, "gw-evil", address=ELSEWHERE) as deaf:
        padding = {"type": "native", "name": "uptime", "params": {"padding": "x" * 900_000}}
        for _ in range(100):
            queue(deaf.agent.row, spec=padding)
        # What its agent says meanwhile is stored, as long as it can be answered.
        for _ in range(200):
            deaf.say(deaf.agent.events(health_changed("nothing", "healthy", text="b" * 9000)))
        slowest_s = max(honest.complete_command() for _ in range(20))
        assert slowest_s < PROMPT_S
        wait_until(is_gone, deadline_s=15)


def test_a_flood_of_bad_frames_ends_the_session(link: LinkProcess, cast: Cast, honest: TalkingGateway) -> None:
    with evil(link, cast) as gateway:
        gateway.send(codec.encode(gateway_hello("gw-evil")).encode())
        with suppress(OSError):
            for number in range(100_000):
                gateway.send(b'{"type":"nonsense%d"}' % number)
        assert gateway.close_code(within_s=5) in {4400, 1006}
    assert honest.complete_command() < PROMPT_S
    wait_until(is_gone)


def test_a_flood_of_good_frames_does_not_hold_others_up(link: LinkProcess, cast: Cast, honest: TalkingGateway) -> None:
    beats = [messages.Heartbeat(f"srv-{number}", 1, [0.1, 0.1, 0.1], 20.0, 0) for number in range(50)]
    beat = codec.encode(messages.AggregatedHeartbeat("gw-evil", beats, AT)).encode()
    stranger = codec.encode(messages.AgentOnline("gw-evil", "s", {"type": "register", "agent_id": "x"})).encode()
    with evil(link, cast) as gateway:
        gateway.send(codec.encode(gateway_hello("gw-evil")).encode())
        wait_until(lambda: not is_gone())
        # A whole frame or none: half of one would end the session.
        gateway.socket.settimeout(10)
        is_over, sent = threading.Event(), itertools.count()

        def flood() -> None:
            while not is_over.is_set():
                gateway.send(beat)
                gateway.send(stranger)
                next(sent)

        flooding = threading.Thread(target=flood)
        flooding.start()
        slowest_s, until_s = 0.0, time.monotonic() + 5
        while time.monotonic() < until_s:
            slowest_s = max(slowest_s, honest.complete_command())
        assert flooding.is_alive(), "it was not shut out, so it was a flood to the end"
        assert not is_gone()
        is_over.set()
        flooding.join(12)
    logger.info("%d frames; the slowest command took %.3f s", 2 * next(sent), slowest_s)
    assert slowest_s < PROMPT_S
