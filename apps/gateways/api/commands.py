"""Single commands: asking for one, how it went, what it printed, and what was run before."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from rest_framework import status
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.gateways.access import access_agent, access_command
from apps.gateways.actions.requests import cancel_command, queue_command
from apps.gateways.api.bodies import (
    CommandBody,
    HistoryQuery,
    OutputQuery,
    PageQuery,
    read_body,
    read_idempotency_key,
    read_query,
)
from apps.gateways.api.waiting import WaitingView
from apps.gateways.models import Command
from apps.gateways.outputs import read_output
from apps.gateways.selectors import (
    HistoryFilter,
    describe_command,
    describe_command_briefly,
    get_command,
    list_commands,
)
from apps.orgs.authentication import actor_of, person_of
from apps.orgs.models import User
from opsmap_protocol.enums import OutputStream


def describe_page(user: User, wanted: HistoryFilter, limit: int) -> dict[str, Any]:
    """`next` is the `before` of the page that follows, null at the end."""
    commands, next_before = list_commands(user, wanted, limit=limit)
    return {
        "results": [describe_command_briefly(command) for command in commands],
        "next": str(next_before) if next_before else None,
    }


class CommandsView(APIView):
    """GET what was run, newest first: `?agent=&state=&broadcast=&subject=&before=&limit=`."""

    def get(self, request: Request) -> Response:
        query = read_query(HistoryQuery, request)
        fields = query.validated_data
        wanted = query.as_history(
            agent_id=fields.get("agent"), broadcast_id=fields.get("broadcast"), subject=fields.get("subject")
        )
        return Response(describe_page(person_of(request), wanted, fields["limit"]))


class AgentCommandsView(WaitingView):
    """GET what was run on an agent, newest first · POST a command to it.

    POST answers 202 at once, or with `?wait=5` when the command has ended (200). `Idempotency-Key` makes a repeated
    request harmless.
    """

    def get(self, request: Request, agent_id: uuid.UUID) -> Response:
        agent = access_agent(person_of(request), agent_id)
        query = read_query(PageQuery, request)
        wanted = query.as_history(agent_id=agent.pk)
        return Response(describe_page(person_of(request), wanted, query.validated_data["limit"]))

    def post(self, request: Request, agent_id: uuid.UUID) -> Response:
        agent = access_agent(person_of(request), agent_id, perm="agent:execute")
        command = queue_command(
            agent=agent,
            actor=actor_of(request),
            idempotency_key=read_idempotency_key(request),
            must_be_online=True,
            **read_body(CommandBody, request).as_wish(),
        )
        if command.is_open:
            self.answer_if_asked([command.pk], lambda: _answer_to_post(get_command(command.pk)))
        return _answer_to_post(command)


def _answer_to_post(command: Command) -> Response:
    done = status.HTTP_202_ACCEPTED if command.is_open else status.HTTP_200_OK
    return Response(describe_command(command), status=done)


class CommandView(WaitingView):
    """GET how a command stands; `?wait=5` answers when it has ended, or after that many seconds."""

    def get(self, request: Request, command_id: uuid.UUID) -> Response:
        command = access_command(person_of(request), command_id)
        if command.is_open:
            self.answer_if_asked([command.pk], lambda: Response(describe_command(get_command(command.pk))))
        return Response(describe_command(command))


class CommandCancelView(APIView):
    """POST asks for the end of a command."""

    def post(self, request: Request, command_id: uuid.UUID) -> Response:
        command = access_command(person_of(request), command_id, perm="agent:execute")
        cancel_command(command=command, actor=actor_of(request))
        return Response(describe_command(get_command(command_id)), status=status.HTTP_202_ACCEPTED)


class PlainTextRenderer(BaseRenderer):
    """The text of an answer alone, for `Accept: text/plain`; its figures are in headers. Problems stay documents."""

    media_type = "text/plain"
    format = "txt"
    charset = "utf-8"

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        if renderer_context and renderer_context["response"].exception:
            return JSONRenderer().render(data)
        return str(data["text"]).encode()


class CommandOutputView(APIView):
    """GET what a command printed: `?stream=stdout|stderr|log&offset=0&limit=65536`, in characters.

    Whatever it is, it is text: it comes as JSON or as text/plain, which no browser may take for anything else.
    """

    renderer_classes = [JSONRenderer, PlainTextRenderer]

    def get(self, request: Request, command_id: uuid.UUID) -> Response:
        command = access_command(person_of(request), command_id)
        fields = read_query(OutputQuery, request).validated_data
        found = read_output(command, OutputStream(fields["stream"]), offset=fields["offset"], limit=fields["limit"])
        facts = {
            "nextOffset": found.next_offset,
            "total": found.total,
            "kept": found.kept,
            "isTruncated": found.is_truncated,
        }
        headers = {"X-Content-Type-Options": "nosniff"}
        if isinstance(request.accepted_renderer, PlainTextRenderer):
            headers |= {f"X-OpsMap-{name}": _as_header(value) for name, value in facts.items()}
        answer = {"commandId": str(command.pk), "stream": fields["stream"], "offset": found.offset, "text": found.text}
        return Response({**answer, **facts}, headers=headers)


def _as_header(value: int | bool | None) -> str:
    return "" if value is None else str(value).lower()
