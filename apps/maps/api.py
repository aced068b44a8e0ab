"""Documents of Maps over REST: create, replace, validate, read, delete."""

from __future__ import annotations

import uuid
from typing import Any

from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.maps.access import access_map
from apps.maps.actions import apply_documents, create_map
from apps.maps.documents.loading import load_map
from apps.maps.documents.reading import MAX_DOCUMENT_BYTES, SourceFile
from apps.maps.documents.schema import SCHEMA
from apps.orgs.access import access_workspace
from apps.orgs.authentication import actor_of, person_of

MAX_DOCUMENTS = 5_000


class DocumentBody(serializers.Serializer[Any]):
    path = serializers.CharField(max_length=300)
    content = serializers.CharField(max_length=MAX_DOCUMENT_BYTES, trim_whitespace=False, allow_blank=True)


class DocumentsBody(serializers.Serializer[Any]):
    documents = serializers.ListField(child=DocumentBody(), allow_empty=False, max_length=MAX_DOCUMENTS)

    def sources(self) -> list[SourceFile]:
        return [SourceFile(item["path"], item["content"]) for item in self.validated_data["documents"]]


class NewMapBody(DocumentsBody):
    workspaceId = serializers.UUIDField()  # noqa: N815 - the name in the API


def _checked(body: serializers.Serializer[Any]) -> Any:
    body.is_valid(raise_exception=True)
    return body


class MapsView(APIView):
    """POST creates a Map in a workspace from its documents."""

    def post(self, request: Request) -> Response:
        body = _checked(NewMapBody(data=request.data))
        workspace = access_workspace(person_of(request), body.validated_data["workspaceId"], perm="workspace:create")
        created = create_map(
            workspace=workspace, sources=body.sources(), owner=person_of(request), actor=actor_of(request)
        )
        return Response({"id": str(created.pk), "slug": created.slug}, status=status.HTTP_201_CREATED)


class ValidateView(APIView):
    """POST tells every fault of documents; nothing is written."""

    def post(self, request: Request) -> Response:
        body = _checked(DocumentsBody(data=request.data))
        _, faults = load_map(body.sources())
        return Response({"isValid": not faults, "errors": [fault.as_json() for fault in faults]})


class DocumentsView(APIView):
    """GET the documents of a Map · PUT replaces them and with them its structure."""

    def get(self, request: Request, map_id: uuid.UUID) -> Response:
        return Response({"documents": access_map(person_of(request), map_id).documents})

    def put(self, request: Request, map_id: uuid.UUID) -> Response:
        map = access_map(person_of(request), map_id, perm="map:edit")
        body = _checked(DocumentsBody(data=request.data))
        has_changed = apply_documents(map=map, sources=body.sources(), actor=actor_of(request))
        return Response({"hasChanged": has_changed})


class SchemaView(APIView):
    """GET the JSON Schema of documents, for editors."""

    authentication_classes = []
    permission_classes = []

    def get(self, request: Request) -> Response:
        return Response(SCHEMA, content_type="application/schema+json")
