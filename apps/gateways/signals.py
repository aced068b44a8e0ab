"""News from hosts for the apps above. Sent inside the ingesting transaction; receivers must not call the network."""

from django.dispatch import Signal

commands_ended = Signal()
"""Commands about something (`subject`) have ended, however. Arguments: `commands`. One batch is one signal."""

health_reported = Signal()
"""Health checks concluded something. Arguments: `agent`, `reports` with check_id, status, details, checked_at."""

agents_online = Signal()
"""Agents have (re)connected. Arguments: `agents`."""

agents_lost = Signal()
"""Agents are out of reach. Arguments: `agents`, `reason`. One lost gateway is one signal."""

agent_discovered = Signal()
"""What is known of an agent's host has changed. Arguments: `agent` (key, organization and agent id only),
`discovery_id`, `kinds`: the names of the kinds that changed; all there are after a full discovery."""
