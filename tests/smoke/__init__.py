"""`make smoke`: the whole product once, from an empty folder to an empty folder, through what a person can reach.

Run with `python -m tests.smoke`. Progress goes to stderr; the last line of stdout is one JSON object.
"""
