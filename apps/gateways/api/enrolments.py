"""The first certificate of a gateway. Nobody is signed in here: the token in the body says who may."""

from __future__ import annotations

import ipaddress
import logging
import math
from http import HTTPStatus

from django.conf import settings
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.gateways.actions.enrolment import MAX_HOSTS, EnrolmentRefusedError, enroll
from apps.gateways.exceptions import PkiError
from apps.gateways.pki.anchors import current_anchors
from opsmap.lib.problems import problem
from opsmap_protocol.enums import PeerRole

logger = logging.getLogger(__name__)

_STATUS = {
    "bad_request": HTTPStatus.BAD_REQUEST,
    "too_many_refusals": HTTPStatus.TOO_MANY_REQUESTS,
    "unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
}
"""Every other refusal is 403: it is about the token, and what it is good for."""


class EnrolmentBody(serializers.Serializer[None]):
    token = serializers.CharField(max_length=200)
    role = serializers.ChoiceField(choices=[str(PeerRole.GATEWAY)])
    name = serializers.CharField(max_length=127)
    hostname = serializers.CharField(max_length=MAX_HOSTS * 256)
    csr = serializers.CharField(max_length=8192)


class EnrolmentsView(APIView):
    """POST a token and a certificate request; the answer is the certificate, and whom to trust."""

    authentication_classes = []
    permission_classes = [AllowAny]

    def post(self, request: Request) -> Response:
        if not _is_private(request):
            reason = (
                "An enrolment token is only taken by https. Behind a proxy that ends TLS, set OPSMAP_SECURE_COOKIES=1."
            )
            return problem(HTTPStatus.FORBIDDEN, "https_required", reason)
        body = EnrolmentBody(data=request.data)
        body.is_valid(raise_exception=True)
        wish = body.validated_data
        try:
            # Before a use of the token is spent: without them nobody could use the certificate.
            anchors = current_anchors(settings.PKI_DIR)
            enrolled = enroll(
                token=wish["token"],
                role=PeerRole(wish["role"]),
                name=wish["name"],
                hostname=wish["hostname"],
                csr=wish["csr"],
                address=_address(request),
            )
        except EnrolmentRefusedError as error:
            refusal = problem(_STATUS.get(error.code, HTTPStatus.FORBIDDEN), error.code, str(error))
            if error.wait_s:
                refusal.headers["Retry-After"] = str(math.ceil(error.wait_s))
            return refusal
        except PkiError as error:
            logger.error("nobody can be enrolled: %s", error)
            return problem(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", "The backend cannot issue certificates now.")
        return Response(
            {
                "certificate": enrolled.chain,
                "root": anchors.root,
                "backendAuthorities": anchors.backend,
                "gatewayAuthorities": anchors.gateway,
                "agentAuthorities": anchors.agent,
            },
            status=HTTPStatus.CREATED,
        )


def _address(request: Request) -> str:
    """Behind a proxy it is the proxy's: what a header says is not believed, so all share one limit there."""
    return str(request.META.get("REMOTE_ADDR") or "")


def _is_private(request: Request) -> bool:
    """Whether nobody on the way could read the token: by https, or from this very machine.

    Whether a proxy ended TLS is told by `X-Forwarded-Proto`, and believed if the installation says that people come by
    HTTPS only. A proxy on this machine is no loopback: its own clients may have come by plain http.
    """
    if request.is_secure():
        return True
    if any(header in request.headers for header in ("X-Forwarded-For", "X-Forwarded-Proto", "Forwarded")):
        return False
    try:
        return ipaddress.ip_address(_address(request)).is_loopback
    except ValueError:
        return False
