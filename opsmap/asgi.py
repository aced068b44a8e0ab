"""The ASGI application that Daphne serves to people and uvicorn to gateways."""

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "opsmap.settings")
django_application = get_asgi_application()

from opsmap.routing import protocols  # noqa: E402 - consumers import models, which needs the set-up above

application = protocols(django_application)
