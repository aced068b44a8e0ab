"""Organizations, people, memberships, workspaces, sign-in and API tokens."""
