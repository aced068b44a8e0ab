"""UUIDv7: the order of time, the bits of RFC 9562, and no two alike."""

from __future__ import annotations

import time
import uuid
from itertools import pairwise
from types import SimpleNamespace

import pytest

from opsmap.lib import uuid7 as module
from opsmap.lib.uuid7 import uuid7


def _at(monkeypatch: pytest.MonkeyPatch, milliseconds: int) -> uuid.UUID:
    monkeypatch.setattr(module, "time", SimpleNamespace(time_ns=lambda: milliseconds * 1_000_000 + 999_999))
    return uuid7()


def test_version_and_variant_bits_are_those_of_rfc_9562() -> None:
    for value in (uuid7() for _ in range(1000)):
        assert value.version == 7
        assert value.variant == uuid.RFC_4122


def test_first_48_bits_are_unix_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    # The example of RFC 9562, appendix A.6.
    value = _at(monkeypatch, 0x017F22E279B0)

    assert value.int >> 80 == 0x017F22E279B0
    assert str(value).startswith("017f22e2-79b0-7")


def test_ids_of_now_carry_the_time_of_now() -> None:
    before, value, after = time.time_ns() // 1_000_000, uuid7(), time.time_ns() // 1_000_000
    assert before <= value.int >> 80 <= after


def test_ids_of_later_milliseconds_sort_later(monkeypatch: pytest.MonkeyPatch) -> None:
    start = 1_790_000_000_000
    ids = [_at(monkeypatch, start + step) for step in (0, 1, 2, 255, 256, 65_536, 10**9)]

    assert all(earlier < later for earlier, later in pairwise(ids))
    assert [str(item) for item in ids] == sorted(map(str, ids))


def test_ids_of_one_millisecond_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len({_at(monkeypatch, 1_790_000_000_000) for _ in range(5000)}) == 5000
