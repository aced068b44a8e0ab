"""From what teams already have to documents a person could have written, and a report of what became of each thing.

Pure: text and plain data in, documents and report out. No database, no network, no files.
"""
