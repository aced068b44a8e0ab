"""The discovery inbox: what hosts found, as components and dependencies that a person takes into a Map."""
