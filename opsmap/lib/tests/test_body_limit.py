"""Bodies of API requests have a limit."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client


@pytest.mark.django_db
def test_a_body_over_the_limit_is_refused(client: Client, settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 100
    body = {"email": "a@b.example", "password": "x" * 100}
    answer = client.post("/api/v1/auth/session", body, content_type="application/json")
    assert answer.status_code == 413
    assert answer.json()["code"] == "body_too_large"


@pytest.mark.django_db
def test_a_body_within_the_limit_is_read(client: Client) -> None:
    body = {"email": "a@b.example", "password": "x"}
    assert client.post("/api/v1/auth/session", body, content_type="application/json").status_code == 401
