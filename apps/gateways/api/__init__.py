"""Gateways, agents, commands and broadcasts over REST."""
