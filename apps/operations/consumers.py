"""What a browser watches: one Map, or the list of Maps.

A hint on the channel layer wakes a socket; it then pulls what is newer than what it has sent and sends that as one
message. Hints that come within the pause are one message, hints that are lost cost at most `SAFETY_S`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from typing import Any

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.core.serializers.json import DjangoJSONEncoder
from django.http import Http404

from apps.maps.access import access_map
from apps.operations.events import map_group, organization_group
from apps.operations.payloads import describe_changes, describe_maps
from apps.operations.selectors import list_maps
from apps.orgs.models import User
from apps.orgs.selectors import list_organization_ids

logger = logging.getLogger(__name__)

PAUSE_S = 0.1
SAFETY_S = 5.0
SIGN_IN_AGAIN = 4401
NOT_FOUND = 4404


class _WatchConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # Channels has no types
    """A socket that sends what is new, at once when it has been quiet, otherwise after a pause."""

    async def connect(self) -> None:
        self.wake = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.groups_joined: list[str] = []
        await self.accept()
        user = self.scope.get("user")
        if not isinstance(user, User) or not user.is_active:
            await self.close(SIGN_IN_AGAIN)
            return
        self.user = user
        try:
            for group in await self._groups():
                await self.channel_layer.group_add(group, self.channel_name)
                self.groups_joined.append(group)
        except Http404:
            await self.close(NOT_FOUND)
            return
        self.task = asyncio.create_task(self._watch())

    async def _groups(self) -> list[str]:
        raise NotImplementedError

    async def _send_news(self) -> None:
        raise NotImplementedError

    async def map_changed(self, event: dict[str, Any]) -> None:
        self.wake.set()

    async def _watch(self) -> None:
        try:
            while True:
                try:
                    async with asyncio.timeout(SAFETY_S):
                        await self.wake.wait()
                except TimeoutError:
                    pass  # no hint came: look anyway
                self.wake.clear()
                await self._send_news()
                await asyncio.sleep(PAUSE_S)
        except Http404:
            await self.close(NOT_FOUND)
        except Exception:
            logger.exception("a live feed failed")
            await self.close(1011)

    async def _send_json(self, payload: dict[str, Any]) -> None:
        await self.send(json.dumps(payload, cls=DjangoJSONEncoder, separators=(",", ":")))

    async def disconnect(self, code: int) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        for group in self.groups_joined:
            await self.channel_layer.group_discard(group, self.channel_name)


class MapConsumer(_WatchConsumer):
    """Changes of one Map after the version that the browser says it has. Silent until it has said so."""

    version: int | None = None
    is_asked = False

    async def _groups(self) -> list[str]:
        self.map_id: uuid.UUID = self.scope["url_route"]["kwargs"]["map_id"]
        await database_sync_to_async(access_map)(self.user, self.map_id)
        return [map_group(self.map_id)]

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        try:
            message = json.loads(text_data or "")
            version = message["version"] if message["type"] == "since" else None
        except (ValueError, KeyError, TypeError):
            version = None
        if not isinstance(version, int) or isinstance(version, bool) or self.task is None:
            await self.close(4400)
            return
        self.version = version
        self.is_asked = True
        self.wake.set()

    async def _send_news(self) -> None:
        if self.version is None:
            return
        # Who asks gets an answer, also that nothing is new: it tells the page that it is up to date again.
        must_answer, self.is_asked = self.is_asked, False
        changes = await database_sync_to_async(self._changes)(self.version, must_answer)
        if changes is not None:
            self.version = changes["version"]
            await self._send_json(changes)

    def _changes(self, since: int, must_answer: bool) -> dict[str, Any] | None:
        # Through the door each time: who loses access stops receiving.
        map = access_map(self.user, self.map_id)
        return describe_changes(map, since) if must_answer or map.version != since else None


class MapListConsumer(_WatchConsumer):
    """The summaries of Maps that changed since this socket last sent them."""

    async def _groups(self) -> list[str]:
        self.versions: dict[str, int] = {}
        self.wake.set()
        return [organization_group(pk) for pk in await database_sync_to_async(list_organization_ids)(self.user)]

    async def _send_news(self) -> None:
        changed = await database_sync_to_async(self._changed)()
        if changed:
            self.versions |= {map["id"]: map["version"] for map in changed}
            await self._send_json({"type": "maps", "maps": changed})

    def _changed(self) -> list[dict[str, Any]]:
        maps = [map for map in list_maps(self.user) if self.versions.get(str(map.pk)) != map.version]
        return describe_maps(maps) if maps else []
