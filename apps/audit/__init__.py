"""Who did what: append-only events. The lowest app; it knows no other."""
