"""The Django admin, for the staff of the platform: everything of delivery is looked at here, and nothing edited.

What reports itself has no form. What may be decided is decided by the same actions as over REST, with audit events.
"""

from apps.gateways.admin import credentials, history, peers

__all__ = ["credentials", "history", "peers"]
