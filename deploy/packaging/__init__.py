"""Building what hosts install: one file that runs anywhere, a deb, an rpm. `python -m deploy.packaging --help`."""
