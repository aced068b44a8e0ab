"""`docker-compose.yml` to a Map: services become components, what they wait for becomes dependencies."""
