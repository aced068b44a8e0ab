"""Documents of Maps over REST: create, import, replace, validate, read, export, delete."""

from __future__ import annotations

import uuid
from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.http import HttpResponse
from django.urls import reverse
from rest_framework import serializers, status
from rest_framework.negotiation import BaseContentNegotiation, DefaultContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.maps.access import access_map
from apps.maps.actions import apply_documents, create_map
from apps.maps.documents.archives import from_zip, path_fault, to_zip
from apps.maps.documents.loading import load_map
from apps.maps.documents.reading import MAX_DOCUMENT_BYTES, SourceFile
from apps.maps.documents.schema import SCHEMA
from apps.maps.exceptions import DocumentsError, ImportRefusedError
from apps.maps.importing.drafts import ImportResult
from apps.maps.importing.requests import ImportKind, import_content
from apps.orgs.access import access_workspace
from apps.orgs.authentication import actor_of, person_of

MAX_DOCUMENTS = 5_000
MAX_ARCHIVE_BYTES = 8 * 1024 * 1024
SCHEMA_LIFETIME_S = 3_600


def _checked_path(path: str) -> None:
    expected = path_fault(path)
    if expected:
        raise serializers.ValidationError(f"Expected {expected}.")


class DocumentBody(serializers.Serializer[Any]):
    path = serializers.CharField(max_length=300, validators=[_checked_path])
    content = serializers.CharField(max_length=MAX_DOCUMENT_BYTES, trim_whitespace=False, allow_blank=True)


class DocumentsBody(serializers.Serializer[Any]):
    documents = serializers.ListField(child=DocumentBody(), allow_empty=False, max_length=MAX_DOCUMENTS)

    def validate_documents(self, documents: list[dict[str, str]]) -> list[dict[str, str]]:
        seen: set[str] = set()
        for path in (item["path"] for item in documents):
            if path in seen:
                raise serializers.ValidationError(f"The path {path!r} appears twice.")
            seen.add(path)
        return documents

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


class ZipParser(BaseParser):
    """The bytes of an archive as they come."""

    media_type = "application/zip"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> dict[str, bytes]:
        data: bytes = stream.read(MAX_ARCHIVE_BYTES + 1)
        if len(data) > MAX_ARCHIVE_BYTES:
            raise RequestDataTooBig
        return {"archive": data}


class JsonOrNothing(BaseContentNegotiation):
    """Problems are JSON whatever was asked for; the archive itself is no rendering of anything."""

    def select_parser(self, request: Any, parsers: Any) -> Any:
        return DefaultContentNegotiation().select_parser(request, parsers)

    def select_renderer(self, request: Any, renderers: Any, format_suffix: Any = None) -> Any:
        return renderers[0], renderers[0].media_type


class ArchiveView(APIView):
    """GET the documents of a Map as a zip file · PUT one that replaces them."""

    parser_classes = [ZipParser]
    content_negotiation_class = JsonOrNothing

    def get(self, request: Request, map_id: uuid.UUID) -> HttpResponse:
        map = access_map(person_of(request), map_id)
        archive = to_zip(SourceFile(item["path"], item["content"]) for item in map.documents)
        headers = {"Content-Disposition": f'attachment; filename="{map.slug}.zip"'}
        return HttpResponse(archive, content_type="application/zip", headers=headers)

    def put(self, request: Request, map_id: uuid.UUID) -> Response:
        map = access_map(person_of(request), map_id, perm="map:edit")
        body: Any = request.data
        sources, faults = from_zip(body.get("archive", b""))
        if faults:
            raise DocumentsError(faults)
        return Response({"hasChanged": apply_documents(map=map, sources=sources, actor=actor_of(request))})


class ImportBody(serializers.Serializer[Any]):
    """`options` are those of the kind (apps.maps.importing.requests)."""

    kind = serializers.ChoiceField(choices=[kind.value for kind in ImportKind])
    content = serializers.JSONField()
    options = serializers.DictField(default=dict)
    workspaceId = serializers.UUIDField(required=False, allow_null=True)  # noqa: N815 - the name in the API
    dryRun = serializers.BooleanField(default=False)  # noqa: N815 - the name in the API


class ImportView(APIView):
    """POST makes documents of a Compose file, the units of a host or a table, and says what became of each thing.

    With `workspaceId` it creates the Map, unless `dryRun` asks for the documents alone.
    """

    def post(self, request: Request) -> Response:
        asked = _checked(ImportBody(data=request.data)).validated_data
        workspace = None
        if asked.get("workspaceId"):
            workspace = access_workspace(person_of(request), asked["workspaceId"], perm="workspace:create")
        schema_url = request.build_absolute_uri(reverse("v1:map-document-schema"))
        result = import_content(ImportKind(asked["kind"]), asked["content"], asked["options"], schema_url=schema_url)
        if result.faults:
            raise ImportRefusedError(result.faults, result.report.as_json())
        if workspace is None or asked["dryRun"]:
            return Response(_describe_import(result))
        created = create_map(
            workspace=workspace, sources=result.sources, owner=person_of(request), actor=actor_of(request)
        )
        made = {"id": str(created.pk), "slug": created.slug, "report": result.report.as_json()}
        return Response(made, status=status.HTTP_201_CREATED)


def _describe_import(result: ImportResult) -> dict[str, Any]:
    """The documents, and what is wrong with them as a Map: values that a document cannot have, such as a host's."""
    _, faults = load_map(result.sources)
    return {
        "documents": [{"path": source.path, "content": source.content} for source in result.sources],
        "report": result.report.as_json(),
        "errors": [fault.as_json() for fault in faults],
    }


class SchemaView(APIView):
    """GET the JSON Schema of documents, for editors and for anybody else."""

    authentication_classes = []
    permission_classes = []

    def get(self, request: Request) -> Response:
        headers = {"Cache-Control": f"public, max-age={SCHEMA_LIFETIME_S}", "Access-Control-Allow-Origin": "*"}
        return Response(SCHEMA, content_type="application/schema+json", headers=headers)
