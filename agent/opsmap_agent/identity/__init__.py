"""Who this agent is: its certificate, how it gets the next one, and whose seals it believes."""
