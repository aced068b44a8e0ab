"""Detached processes: launched through a shim that outlives the agent, watched, found again."""
