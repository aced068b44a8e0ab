"""One look: budgets, faults that stay with their kind, differences that come to the same as everything."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsmap_agent.discovery import apart
from opsmap_agent.discovery.apart import survey_apart
from opsmap_agent.discovery.findings import Finding, Found, NotAvailableError, clean, cut_to, key_of
from opsmap_agent.discovery.memory import Told
from opsmap_agent.discovery.reports import BUDGETS, compare, within
from opsmap_agent.discovery.survey import report_on, survey
from opsmap_gateway.discovery import MAX_RESULT_BYTES
from opsmap_protocol.enums import DiscoveryKind

PORTS = DiscoveryKind.PORTS
AT = datetime(2026, 11, 21, tzinfo=UTC)


def ports(*numbers: int) -> list[Finding]:
    return [{"key": f"tcp:{number}", "port": number} for number in numbers]


# Text


@settings(deadline=None, database=None)
@given(st.text(max_size=400), st.integers(2, 300))
def test_clean_text_is_printable_and_bounded(text: str, limit: int) -> None:
    cleaned = clean(text, limit)
    assert cleaned.isprintable()
    assert len(cleaned) <= limit
    if text.isprintable() and len(text) <= limit:
        assert cleaned == text


@settings(deadline=None, database=None)
@given(st.lists(st.text(max_size=300), min_size=1, max_size=3), st.lists(st.text(max_size=300), min_size=1, max_size=3))
def test_keys_are_bounded_and_stay_apart(one: list[str], other: list[str]) -> None:
    assert len(key_of(*one)) <= 213
    assert key_of(*one).isprintable()
    assert (key_of(*one) == key_of(*other)) == (":".join(one) == ":".join(other))


# Budgets and faults


def test_all_budgets_together_fit_into_one_message() -> None:
    assert set(BUDGETS) == set(DiscoveryKind)
    assert sum(BUDGETS.values()) < 1024 * 1024 < MAX_RESULT_BYTES


def test_what_exceeds_its_budget_is_cut_and_said() -> None:
    found = within(Found([{"key": str(number), "text": "x" * 1000} for number in range(100)]), 10_240)
    assert [each["key"] for each in found.findings] == [str(number) for number in range(10)]
    assert found.fault == "only 10 of 100 are told: together they exceed 10 KiB"


def test_a_budget_counts_what_html_and_odd_characters_become() -> None:
    found = within(Found([{"key": str(number), "text": '\ufffd<&"' * 300} for number in range(100)]), 10_240)
    assert len(json.dumps(found.findings, ensure_ascii=False).encode()) < 11_000


def test_findings_are_cut_in_order_of_their_keys() -> None:
    assert cut_to(ports(3, 1, 2), 2, "ports") == Found(ports(1, 2), "only 2 of 3 ports are told")


def test_a_fault_of_a_collector_is_told_and_stays_with_its_kind() -> None:
    def broken() -> Found:
        raise ZeroDivisionError("oops\x1b[31m")

    def absent() -> Found:
        raise NotAvailableError("no Docker here")

    report = report_on(PORTS, broken, {"tcp:1": "digest"})
    assert (report.changed, report.removed) == ([], ["tcp:1"])
    assert report.fault == "internal error of the agent: ZeroDivisionError: oops\ufffd[31m"
    assert report_on(PORTS, absent, {}).fault == "no Docker here"


def test_a_real_look_tells_every_kind_that_is_asked_for() -> None:
    reports = list(survey([PORTS, DiscoveryKind.PODS], {}))
    assert [report.kind for report in reports] == [PORTS, DiscoveryKind.PODS]


# Differences

SITUATIONS = st.lists(
    st.dictionaries(
        st.sampled_from(list(DiscoveryKind)[:3]),
        st.dictionaries(st.text(max_size=3), st.integers(0, 2), max_size=5),
        max_size=3,
    ),
    max_size=8,
)


@settings(deadline=None, database=None)
@given(SITUATIONS)
def test_differences_come_to_the_same_as_everything(situations: list[dict[DiscoveryKind, dict[str, int]]]) -> None:
    """Any sequence of looks, also at some kinds only: who adds the differences up knows the last state of each."""
    backend: dict[str, dict[str, Finding]] = {}
    truth: dict[str, dict[str, Finding]] = {}
    told = Told()
    for number, situation in enumerate(situations):
        reports = []
        for kind, values in situation.items():
            findings = [{"key": key, "value": value} for key, value in values.items()]
            truth[kind] = {each["key"]: each for each in findings}
            reports.append(compare(kind, Found(findings), told.digests.get(kind, {})))
        for report in reports:
            known = backend.setdefault(report.kind, {})
            for key in report.removed:
                del known[key]
            known.update({each["key"]: each for each in report.changed})
        told = told.with_reports(reports, f"d-{number}", AT, is_full=False)
    assert backend == truth


def test_the_same_again_is_no_difference() -> None:
    first = compare(PORTS, Found(ports(1, 2)), {})
    again = compare(PORTS, Found(ports(2, 1)), first.digests)
    assert (again.changed, again.removed, again.digests) == ([], [], first.digests)


# In a child process


async def test_a_child_looks_at_this_host() -> None:
    reports = {report.kind: report for report in await survey_apart(list(DiscoveryKind), {})}
    assert set(reports) == set(DiscoveryKind)
    assert reports[DiscoveryKind.FILESYSTEMS].changed
    told = {kind.value: report.digests for kind, report in reports.items()}
    [again] = await survey_apart([DiscoveryKind.FILESYSTEMS], told)
    assert (again.changed, again.removed) == ([], [])


def run_instead(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Have a child do something else."""
    start = asyncio.create_subprocess_exec

    async def start_other(program: str, *arguments: str, **options: Any) -> asyncio.subprocess.Process:
        return await start(program, "-c", script, **options)

    monkeypatch.setattr(apart.asyncio, "create_subprocess_exec", start_other)


ONE_KIND = json.dumps({"kind": "ports", "changed": ports(1), "removed": [], "digests": {}, "fault": None})


async def test_a_child_that_hangs_is_killed_and_what_it_has_told_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    noted = tmp_path / "pid"
    note = f"import os, time; open({str(noted)!r}, 'w').write(str(os.getpid()))"
    script = f"{note}; print({ONE_KIND!r}, flush=True); time.sleep(99)"
    run_instead(monkeypatch, script)
    reports = await survey_apart([PORTS, DiscoveryKind.PODS], {"pods": {"a": "b"}}, timeout_s=3)
    assert reports[0].changed == ports(1)
    assert (reports[1].removed, reports[1].fault) == (["a"], "it was not reached within 3 s")
    with pytest.raises(ProcessLookupError):
        os.kill(int(noted.read_text()), 0)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("raise SystemExit('no memory \\x1b[31m')", "no memory \ufffd[31m"),
        ("print('nonsense')", "Expecting value"),
        ("print('x' * 9_000_000)", "limit"),
        ("import os; os.kill(os.getpid(), 9)", "exit code -9"),
        ('print(\'{"kind": "other"}\')', "not a valid DiscoveryKind"),
    ],
)
async def test_a_child_that_fails_is_a_fault(monkeypatch: pytest.MonkeyPatch, script: str, reason: str) -> None:
    run_instead(monkeypatch, script)
    [report] = await survey_apart([PORTS], {}, timeout_s=20)
    assert report.fault is not None
    assert report.fault.startswith("the look at this host failed: ")
    assert reason in report.fault


async def test_a_cancelled_look_leaves_no_child(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    os.mkfifo(noted)
    run_instead(monkeypatch, f"import os, time; open({str(noted)!r}, 'w').write(str(os.getpid())); time.sleep(99)")
    look = asyncio.create_task(survey_apart([PORTS], {}))
    pid = int(await asyncio.to_thread(noted.read_text))
    look.cancel()
    await asyncio.wait([look])
    assert look.cancelled()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_agent_itself_does_not_load_the_collectors() -> None:
    """They would stay in its memory between two looks."""
    code = "import sys, opsmap_agent.agent; print(*(each for each in sys.modules if 'opsmap_agent.discovery' in each))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = {name.rpartition(".")[2] for name in shown.split()}
    assert loaded == {"discovery", "apart", "discoverer", "findings", "memory", "reports"}
