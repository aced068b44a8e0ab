"""What agent and gateway share as long-running processes: configuration, TLS, logs, staying connected."""
