# SPDX-License-Identifier: Apache-2.0
"""CNI_ARGS: "KEY=VALUE;KEY=VALUE", in any order (CNI specification 1.1.0, section 2, "Parameters").

The reference library's rule for keys that a plugin does not know is kept: they are an error unless
IgnoreUnknown is true ("1", "true", "t", any case).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agent.cni.errors import CniError, Code
from sdn.model.names import InvalidObjectError, check_dns_label, check_dns_subdomain

_FIELDS: Final = {
    "K8S_POD_NAMESPACE": "pod_namespace",
    "K8S_POD_NAME": "pod_name",
    "K8S_POD_UID": "pod_uid",
    "K8S_POD_INFRA_CONTAINER_ID": "infra_container_id",
    "IP": "ip",
    "MAC": "mac",
}
_TRUE: Final = frozenset(("1", "t", "true"))
_FALSE: Final = frozenset(("0", "f", "false", ""))


@dataclass(frozen=True)
class Arguments:
    """What CNI_ARGS said; empty where it said nothing."""

    pod_namespace: str = ""
    pod_name: str = ""
    pod_uid: str = ""
    infra_container_id: str = ""
    ip: str = ""
    mac: str = ""


def parse(text: str) -> Arguments:
    """CniError INVALID_ENVIRONMENT for a pair without "=", an unknown key, or IgnoreUnknown that is no truth value."""
    values: dict[str, str] = {}
    unknown: list[str] = []
    ignore = False
    for pair in text.split(";"):
        if not pair:
            continue
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise CniError(Code.INVALID_ENVIRONMENT, f"CNI_ARGS: {pair!r} is not KEY=VALUE")
        if key == "IgnoreUnknown":
            if value.lower() not in _TRUE | _FALSE:
                raise CniError(
                    Code.INVALID_ENVIRONMENT, f"CNI_ARGS: IgnoreUnknown={value!r} is neither true nor false"
                )
            ignore = value.lower() in _TRUE
        elif key in _FIELDS:
            values[_FIELDS[key]] = value
        else:
            unknown.append(key)
    if unknown and not ignore:
        raise CniError(
            Code.INVALID_ENVIRONMENT,
            f"CNI_ARGS: unknown keys {', '.join(sorted(unknown))}",
            "give IgnoreUnknown=1 to have them ignored",
        )
    return Arguments(**values)


def check_names(given: Arguments, container_id: str) -> None:
    """CniError INVALID_ENVIRONMENT unless the pod's names are such as Kubernetes gives. A container that is no pod goes
    by its id, which need be no such name.
    """
    try:
        if given.pod_namespace:
            check_dns_label("CNI_ARGS K8S_POD_NAMESPACE", given.pod_namespace)
        name = given.pod_name or container_id
        if given.pod_uid or name != container_id:
            check_dns_subdomain("CNI_ARGS K8S_POD_NAME", name)
    except InvalidObjectError as problem:
        raise CniError(Code.INVALID_ENVIRONMENT, str(problem)) from None
