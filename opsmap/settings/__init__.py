"""Django settings, from the environment only. `environment.py` says which variables there are."""

from opsmap.settings.base import *  # noqa: F403
