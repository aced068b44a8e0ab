"""Django's backend for PostgreSQL, whose pool gives no dead connections."""
