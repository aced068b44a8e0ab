"""Asking the processes that a service needs whether they are really there.

Every kind of process is asked in its own protocol, all of them at once, over a new connection each time: a
service that trusted an old connection would not notice that the other side went away in between.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from deploy.demo.components import Kind

UP = "UP"

_POSTGRESQL_PROTOCOL_3 = 196608
_POSTGRESQL_PARAMETERS = b"user\0health\0database\0postgres\0\0"


class Question(NamedTuple):
    """What to send to `port`, and how to read the answer.

    `judge` gets everything received so far: `UP`, another text as the reason why not, or None while it is
    too short.
    """

    name: str
    port: int
    request: bytes
    judge: Callable[[bytes], str | None]


def ask_process(name: str, kind: Kind, port: int) -> Question:
    """The question whose answer is `UP` only if the process can do its work."""
    if kind is Kind.POSTGRESQL:
        startup = struct.pack("!i", _POSTGRESQL_PROTOCOL_3) + _POSTGRESQL_PARAMETERS
        return Question(name, port, struct.pack("!i", len(startup) + 4) + startup, _judge_postgresql)
    if kind is Kind.VALKEY:
        return Question(name, port, b"PING\r\n", _judge_valkey)
    return Question(name, port, b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", _judge_http)


def ask_port(name: str, port: int) -> Question:
    """The lighter question for a weak dependency: does anything accept a connection?"""
    return Question(name, port, b"", lambda answer: UP)


def answers(questions: Iterable[Question], *, timeout_s: float) -> dict[str, str]:
    """Ask everything at once and give each its answer: `UP`, or why not. Takes at most `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    verdicts: dict[str, str] = {}
    with selectors.DefaultSelector() as selector:
        try:
            for question in questions:
                verdicts[question.name] = f"no answer within {timeout_s * 1000:.0f} ms"
                connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
                connection.setblocking(False)
                selector.register(connection, selectors.EVENT_WRITE, _Conversation(question))
                connection.connect_ex(("127.0.0.1", question.port))
            while selector.get_map() and (left := deadline - time.monotonic()) > 0:
                for key, _events in selector.select(left):
                    conversation: _Conversation = key.data
                    assert isinstance(key.fileobj, socket.socket)
                    verdict = conversation.go_on(key.fileobj)
                    if verdict is None:
                        selector.modify(key.fileobj, selectors.EVENT_READ, conversation)
                    else:
                        verdicts[conversation.question.name] = verdict
                        selector.unregister(key.fileobj)
                        key.fileobj.close()
        finally:
            for key in list(selector.get_map().values()):
                assert isinstance(key.fileobj, socket.socket)
                key.fileobj.close()
    return verdicts


class _Conversation:
    """One question under way: sent once the connection stands, then answered in as many pieces as it takes."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self._is_sent = False
        self._answer = b""

    def go_on(self, connection: socket.socket) -> str | None:
        """Do what the ready connection allows; returns the verdict, or None if more must arrive."""
        try:
            if not self._is_sent:
                return self._send(connection)
            received = connection.recv(4096)
        except OSError as error:
            return _reason(error)
        self._answer += received
        verdict = self.question.judge(self._answer)
        return verdict if verdict or received else "closed the connection without an answer"

    def _send(self, connection: socket.socket) -> str | None:
        if failure := connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return _reason(OSError(failure, os.strerror(failure)))
        self._is_sent = True
        if not self.question.request:
            return self.question.judge(b"")
        # A new connection takes this much at once.
        connection.sendall(self.question.request)
        return None


def _reason(error: OSError) -> str:
    return "connection refused" if error.errno == errno.ECONNREFUSED else os.strerror(error.errno or 0).lower()


def _judge_postgresql(answer: bytes) -> str | None:
    """PostgreSQL asks for the password only when it is open for work; while it starts or stops it sends an error."""
    if not answer:
        return None
    if answer[:1] == b"R":
        return UP
    if answer[:1] != b"E":
        return "does not speak the protocol of PostgreSQL"
    if len(answer) < 5 or len(answer) < 1 + int(struct.unpack_from("!i", answer, 1)[0]):
        return None
    message = next((field[1:] for field in answer[5:].split(b"\0") if field[:1] == b"M"), b"error")
    return message.decode("utf-8", "replace")


def _judge_valkey(answer: bytes) -> str | None:
    if b"\r\n" not in answer:
        return None
    line = answer.split(b"\r\n", 1)[0]
    return UP if line == b"+PONG" else line.decode("utf-8", "replace").lstrip("-")


def _judge_http(answer: bytes) -> str | None:
    if b"\r\n" not in answer:
        return None
    line = answer.split(b"\r\n", 1)[0].decode("latin-1")
    if line.startswith("HTTP/1.1 200 "):
        return UP
    return "DOWN" if line.startswith("HTTP/1.1 503 ") else f"answered {line!r}"
