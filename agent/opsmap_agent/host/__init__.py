"""The host as the agent sees it: its name, clocks, processes and services."""
