"""YAML documents to Maps, without Django: read safely, validate against the schema, name every fault."""
