"""Safety nets. What they repair normally happens by an event long before."""

from __future__ import annotations

from celery import shared_task

from apps.gateways.actions.claims import due_questions
from apps.gateways.actions.commands import sweep_commands as sweep
from apps.gateways.actions.sessions import sweep_sessions
from apps.gateways.dispatch import gateway_group
from apps.gateways.hints import send_hint


@shared_task(name="gateways.poll_running_jobs")
def poll_running_jobs() -> None:
    """Have agents asked about running jobs and about commands of unknown fate: one hint to each gateway's link.

    The link makes the frames, as only it can seal them.
    """
    for gateway_id, questions in due_questions().items():
        hint = {"type": "link.ask", "jobs": questions.jobs, "probes": questions.probes}
        send_hint(gateway_group(gateway_id), hint)


@shared_task(name="gateways.sweep_commands")
def sweep_commands() -> None:
    sweep_sessions()
    sweep()
