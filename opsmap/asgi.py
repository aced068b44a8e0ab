"""The ASGI application that Daphne serves to people and uvicorn to gateways."""

from __future__ import annotations

import os
import sys

from django.core.asgi import get_asgi_application

# Database work runs in threads beside the event loop. With Python's 5 ms between two holders of the interpreter lock,
# the loop waits that long for each of them before it can pass a frame on.
sys.setswitchinterval(0.0005)

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "opsmap.settings")
django_application = get_asgi_application()

from opsmap.routing import protocols  # noqa: E402 - consumers import models, which needs the set-up above

application = protocols(django_application)
