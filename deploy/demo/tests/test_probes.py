"""What a service concludes from the answers, or the silence, of what it needs."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from deploy.demo.components import Kind
from deploy.demo.probes import answers, ask_port, ask_process

Serve = Callable[..., int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts servers that answer one connection with the given pieces and close; None means to say nothing and stay."""
    listeners: list[socket.socket] = []
    threads: list[threading.Thread] = []
    is_over = threading.Event()

    def start(*pieces: bytes | None) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def run() -> None:
            connection, _address = listener.accept()
            with connection:
                connection.recv(4096)  # closing with the question unread would reset the connection
                for piece in pieces:
                    if piece is None:
                        is_over.wait(5)
                    else:
                        connection.sendall(piece)
                        time.sleep(0.01)

        thread = threading.Thread(target=run)
        thread.start()
        threads.append(thread)
        return int(listener.getsockname()[1])

    yield start
    is_over.set()
    for thread in threads:
        thread.join()
    for listener in listeners:
        listener.close()


POSTGRESQL_ASKS_FOR_THE_PASSWORD = b"R\x00\x00\x00\x17\x00\x00\x00\x0aSCRAM-SHA-256\x00\x00"


@pytest.mark.parametrize(
    ("kind", "pieces", "verdict"),
    [
        (Kind.POSTGRESQL, [POSTGRESQL_ASKS_FOR_THE_PASSWORD], "UP"),
        (Kind.POSTGRESQL, [b"HTTP/1.1 400 Bad Request\r\n"], "does not speak the protocol of PostgreSQL"),
        (Kind.VALKEY, [b"+PONG\r\n"], "UP"),
        (Kind.VALKEY, [b"+PO", b"NG\r\n"], "UP"),
        (
            Kind.VALKEY,
            [b"-LOADING Valkey is loading the dataset in memory\r\n"],
            "LOADING Valkey is loading the dataset in memory",
        ),
        (Kind.SERVICE, [b"HTTP/1.1 200 OK\r\n\r\n"], "UP"),
        (Kind.SERVICE, [b"HTTP/1.", b"1 503 Service Unavailable\r\n\r\n"], "DOWN"),
        (Kind.SERVICE, [b"HTTP/1.1 404 Not Found\r\n\r\n"], "answered 'HTTP/1.1 404 Not Found'"),
        (Kind.SERVICE, [], "closed the connection without an answer"),
        (Kind.SERVICE, [None], "no answer within 300 ms"),
    ],
)
def test_verdicts(serve: Serve, kind: Kind, pieces: list[bytes | None], verdict: str) -> None:
    port = serve(*pieces)
    assert answers([ask_process("it", kind, port)], timeout_s=0.3) == {"it": verdict}


def test_postgresql_says_itself_why_it_does_not_work_yet(serve: Serve) -> None:
    text = b"SFATAL\0C57P03\0Mthe database system is starting up\0\0"
    message = b"E" + (len(text) + 4).to_bytes(4, "big") + text
    port = serve(message[:10], message[10:])
    assert answers([ask_process("it", Kind.POSTGRESQL, port)], timeout_s=0.3) == {
        "it": "the database system is starting up"
    }


def test_nobody_there_is_a_refusal() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert answers([ask_port("it", port)], timeout_s=0.3) == {"it": "connection refused"}


def test_everything_is_asked_at_once_and_one_silence_does_not_hide_the_rest(serve: Serve) -> None:
    questions = [ask_process(f"silent {number}", Kind.VALKEY, serve(None)) for number in range(3)]
    questions.append(ask_process("well", Kind.VALKEY, serve(b"+PONG\r\n")))
    began = time.monotonic()
    verdicts = answers(questions, timeout_s=0.2)
    assert time.monotonic() - began < 0.5
    assert verdicts.pop("well") == "UP"
    assert set(verdicts.values()) == {"no answer within 200 ms"}


def test_a_weak_dependency_is_only_asked_whether_it_is_there(serve: Serve) -> None:
    assert answers([ask_port("it", serve(None))], timeout_s=0.3) == {"it": "UP"}
