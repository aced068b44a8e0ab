"""The vocabulary of proposals."""

from django.db.models import TextChoices


class ProposalKind(TextChoices):
    COMPONENT = "component", "Component"
    DEPENDENCY = "dependency", "Dependency"


class ProposalStatus(TextChoices):
    """How what was found compares with the Maps."""

    NEW = "new", "New"
    CHANGED = "changed", "Changed"
    """It is on a Map, with another version."""
    MISSING = "missing", "Missing"
    """It is on a Map, and not on the host any more."""
    KNOWN = "known", "Known"
    """It is on a Map as it was found: nothing to be asked about."""
