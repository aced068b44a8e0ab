"""The Django apps, from the lowest: audit, orgs, maps and gateways, rbac, operations. Imports go downwards only."""
