"""Pods, as the API server of a cluster tells of them to whoever runs inside it.

The agent uses the service account that Kubernetes gives each pod, and nothing else: it does not look for the
kubeconfig of some person. A role that may list pods is all that it needs.
"""

from __future__ import annotations

import http.client
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from opsmap_agent.discovery.findings import Finding, Found, NotAvailableError, clean, cut_to, key_of, without_nulls
from opsmap_agent.discovery.local_http import TIMEOUT_S, get_json

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_MAX_PODS = 2_000
_PAGE = 500
_MAX_CONTAINERS_OF_ONE = 30
_MAX_FILE = 64 * 1024


def discover_pods(
    namespace: str | None = None, *, account: Path = _ACCOUNT, environment: Mapping[str, str] = os.environ
) -> Found:
    """Those of one namespace or of all, as far as the service account may see them.

    Raises:
        NotAvailableError: the agent does not run in a cluster, or may not list pods.
    """
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise NotAvailableError("the agent does not run inside a Kubernetes cluster")
    try:
        context = ssl.create_default_context(cafile=account / "ca.crt")
        # As Kubernetes' own clients do it: what stands in the file is trusted, be it signed by somebody else.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        with (account / "token").open() as file:
            headers = {"Authorization": f"Bearer {file.read(_MAX_FILE).strip()}"}
    except (OSError, ssl.SSLError) as error:
        raise NotAvailableError(f"the service account of this pod cannot be used: {error}") from None
    folder = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods" if namespace else "/api/v1/pods"
    findings: list[Finding] = []
    query = {"limit": str(_PAGE)}
    while len(findings) <= _MAX_PODS:
        connection = http.client.HTTPSConnection(host, int(port), timeout=TIMEOUT_S, context=context)
        page = get_json(connection, f"{folder}?{urlencode(query)}", headers)
        items, metadata = (page.get("items"), page.get("metadata")) if isinstance(page, dict) else (None, None)
        if not isinstance(items, list):
            raise NotAvailableError("the API server does not answer with a list of pods")
        findings += [_describe(item) for item in items if isinstance(item, dict)]
        query["continue"] = str(metadata.get("continue") or "") if isinstance(metadata, dict) else ""
        if not query["continue"] or not items:
            break
    return cut_to({each["key"]: each for each in findings}.values(), _MAX_PODS, "pods")


def _describe(pod: dict[str, Any]) -> Finding:
    metadata, spec, status = (_object(pod.get(name)) for name in ("metadata", "spec", "status"))
    name, namespace = str(metadata.get("name", "")), str(metadata.get("namespace", ""))
    owners, containers = metadata.get("ownerReferences"), spec.get("containers")
    owner = _object(owners[0]) if isinstance(owners, list) and owners else {}
    return without_nulls(
        key=key_of(f"{namespace}/{name}"),
        name=clean(name),
        namespace=clean(namespace),
        status=clean(str(status.get("phase", ""))),
        node=clean(str(spec.get("nodeName") or "")) or None,
        owner=clean(f"{owner['kind']}/{owner['name']}") if "kind" in owner and "name" in owner else None,
        containers=[
            {"name": clean(str(each.get("name", ""))), "image": clean(str(each.get("image", "")))}
            for each in map(_object, containers[:_MAX_CONTAINERS_OF_ONE] if isinstance(containers, list) else [])
        ],
    )


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
