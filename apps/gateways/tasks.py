"""Safety nets. What they repair normally happens by an event long before."""

from __future__ import annotations

from asgiref.sync import async_to_sync
from celery import shared_task
from channels.layers import get_channel_layer

from apps.gateways.actions.commands import sweep_commands as sweep
from apps.gateways.actions.reports import due_polls
from apps.gateways.actions.sessions import sweep_sessions
from apps.gateways.dispatch import gateway_group, poll_frame


@shared_task(name="gateways.poll_running_jobs")
def poll_running_jobs() -> None:
    """Ask about running jobs, one message to each gateway that has some."""
    layer = get_channel_layer()
    assert layer is not None
    for gateway_id, jobs in due_polls().items():
        frames = [poll_frame(agent_id, job_ids) for agent_id, job_ids in jobs]
        async_to_sync(layer.group_send)(gateway_group(gateway_id), {"type": "link.send", "frames": frames})


@shared_task(name="gateways.sweep_commands")
def sweep_commands() -> None:
    sweep_sessions()
    sweep()
