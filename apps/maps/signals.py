"""News for the apps above. Sent inside the transaction of the change."""

from django.dispatch import Signal

map_structure_changed = Signal()
"""A Map's components or dependencies changed. Arguments: `map_id`, `organization_id`."""
