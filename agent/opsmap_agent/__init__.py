"""The agent: runs on a host, dials its gateway, runs signed commands once and reports every outcome at least once."""

__version__ = "0.1.0"
