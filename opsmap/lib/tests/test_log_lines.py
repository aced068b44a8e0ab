"""What a host says arrives inert in the backend's log."""

from __future__ import annotations

import logging
import logging.config
from io import StringIO
from typing import Any

import pytest
from django.conf import settings

HOSTILE = [
    "\x1b[2J\x1b]0;owned\x07",
    "srv\r\nERROR   apps.gateways: a line of its own",
    "\x9b31m",
    "\x7f\x08\x08\x00",
    "a\u202egnp.exe",
    "\u2066x\u2069",
    "a\u2028b\u0085c",
]


@pytest.fixture
def log() -> Any:
    """A logger with the formatter of the settings, and what it wrote."""
    stream = StringIO()
    handler = logging.StreamHandler(stream)
    formatter = settings.LOGGING["formatters"][settings.LOGGING["handlers"]["console"]["formatter"]]
    configurator: Any = logging.config.DictConfigurator({"version": 1})
    handler.setFormatter(configurator.configure_formatter(formatter))
    logger = logging.Logger("apps.gateways")
    logger.addHandler(handler)
    return logger, stream


@pytest.mark.parametrize("hostile", HOSTILE, ids=ascii)
def test_message_stays_one_harmless_line(log: Any, hostile: str) -> None:
    logger, stream = log
    logger.warning("agent %s is gone", hostile)
    line = stream.getvalue()
    assert line.endswith(" is gone\n")
    assert len(line.splitlines()) == 1
    assert line[:-1].isascii()
    assert line[:-1].isprintable()


def test_letters_of_all_languages_stay(log: Any) -> None:
    logger, stream = log
    logger.warning("größe 大きさ \U0001f600")
    assert stream.getvalue() == "WARNING apps.gateways: größe 大きさ \U0001f600\n"


def test_traceback_keeps_its_lines_and_nothing_else(log: Any) -> None:
    logger, stream = log
    try:
        raise ValueError("".join(HOSTILE))
    except ValueError:
        logger.exception("it failed", stack_info=True)
    lines = stream.getvalue().split("\n")
    assert lines[0] == "ERROR   apps.gateways: it failed"
    assert "Traceback (most recent call last):" in lines
    assert all(line.isprintable() for line in lines)
