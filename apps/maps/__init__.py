"""Maps of applications: components, dependencies, their YAML documents, and the pure planning code."""
