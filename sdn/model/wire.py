# SPDX-License-Identifier: Apache-2.0
"""How a field of a struct is called in a document: in Kubernetes' camel case (``cluster_ips`` is ``clusterIPs``)."""

from __future__ import annotations

_ACRONYMS = {"ip": "IP", "ips": "IPs"}


def wire_name(field: str) -> str:
    """The name in a document of a struct's field."""
    first, *rest = field.split("_")
    return first + "".join(_ACRONYMS.get(word) or word.capitalize() for word in rest)
