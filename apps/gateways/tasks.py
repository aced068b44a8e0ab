"""Safety nets. What they repair normally happens by an event long before."""

from __future__ import annotations

import logging

from celery import shared_task
from django.conf import settings

from apps.audit.actor import Actor
from apps.gateways.actions.authorities import renew_own_certificates
from apps.gateways.actions.claims import due_questions
from apps.gateways.actions.commands import sweep_commands as sweep
from apps.gateways.actions.expiry import tell_expiring_certificates as tell_expiring
from apps.gateways.actions.quarantine import sweep_quarantine
from apps.gateways.actions.sessions import sweep_sessions
from apps.gateways.dispatch import gateway_group
from apps.gateways.exceptions import PkiError
from apps.gateways.hints import send_hint

logger = logging.getLogger(__name__)


@shared_task(name="gateways.poll_running_jobs")
def poll_running_jobs() -> None:
    """Have agents asked about running jobs and about commands of unknown fate: one hint to each gateway's link.

    The link makes the frames, as only it can seal them.
    """
    for gateway_id, questions in due_questions().items():
        hint = {"type": "link.ask", "jobs": questions.jobs, "probes": questions.probes}
        send_hint(gateway_group(gateway_id), hint)


@shared_task(name="gateways.tell_expiring_certificates")
def tell_expiring_certificates() -> None:
    tell_expiring()


_faults: set[str] = set()
"""What was wrong when certificates were looked at last: told once, not every few seconds."""


@shared_task(name="gateways.renew_certificates")
def renew_certificates() -> None:
    """The link server's certificate and the key that seals, at two thirds of their lives."""
    try:
        renew_own_certificates(folder=settings.PKI_DIR, actor=Actor.system("renew_certificates"))
    except PkiError as error:
        if str(error) not in _faults:
            logger.error("the certificates of this installation cannot be renewed: %s", error)
        _faults.clear()
        _faults.add(str(error))
    else:
        _faults.clear()


@shared_task(name="gateways.sweep_commands")
def sweep_commands() -> None:
    sweep_sessions()
    sweep_quarantine()
    sweep()
