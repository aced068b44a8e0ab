"""News from hosts for the apps above. Sent inside the ingesting transaction; receivers must not call the network."""

from django.dispatch import Signal

command_ended = Signal()
"""A command has ended, however. Arguments: `command`."""

health_reported = Signal()
"""Health checks concluded something. Arguments: `agent`, `reports` with check_id, status, details, checked_at."""

agents_online = Signal()
"""Agents have (re)connected. Arguments: `agents`."""

agents_lost = Signal()
"""Agents are out of reach. Arguments: `agents`, `reason`. One lost gateway is one signal."""
