"""Several people, or programs of one, who ask at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from django.db import connection
from django.test import Client


def at_once(count: int, person: Any, ask: Callable[[Client], Any]) -> list[Any]:
    """The answers to the same request, asked by so many at the same moment."""
    answers: list[Any] = []
    start = threading.Barrier(count)

    def run() -> None:
        client = Client()
        client.force_login(person)
        try:
            start.wait(5)
            answers.append(ask(client))
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return answers
