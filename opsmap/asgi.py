"""The ASGI application that Daphne serves to people and uvicorn to gateways."""

from __future__ import annotations

import gc
import importlib
import os
import sys

import django
from django.conf import settings

# Database work runs in threads beside the event loop. With Python's 5 ms between two holders of the interpreter lock,
# the loop waits that long for each of them before it can pass a frame on.
sys.setswitchinterval(0.0005)

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "opsmap.settings")
django.setup(set_prefix=False)

from opsmap.routing import protocols  # noqa: E402 - consumers import models, which needs the set-up above
from opsmap.threads import Application, leave_out_empty_beginnings  # noqa: E402

leave_out_empty_beginnings()
django_application = Application()
application = protocols(django_application)

# What is loaded now stays: the garbage collector need not look through all of Django each time.
importlib.import_module(settings.ROOT_URLCONF)
gc.collect()
gc.freeze()
