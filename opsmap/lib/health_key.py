"""Who may learn from the health endpoint how much is connected: whoever holds the installation's secret.

Standard library only: the supervisor of `make run` uses it without Django.
"""

from __future__ import annotations

import hmac

HEADER = "X-OpsMap-Health-Key"


def health_key(secret_key: str) -> str:
    """Derived from the secret key, which it does not give away."""
    return hmac.new(secret_key.encode(), b"opsmap health", "sha256").hexdigest()
