"""Gateways and agents, their identities, and the delivery of commands. Knows nothing of Maps."""
