"""Small pure helpers, one topic a file. Knows no app and has no models."""
