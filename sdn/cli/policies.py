# SPDX-License-Identifier: Apache-2.0
"""NetworkPolicies and ClusterNetworkPolicies in words and columns, as kubectl has them. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdn.cli.output import NONE

Document = Mapping[str, Any]

#: In the order in which they are asked.
_TIERS = ("Admin", "NetworkPolicy", "Baseline")
_STAGED = "sdn/staged"
_AUDIT = "sdn/audit"
_OPERATORS = {"In": "in", "NotIn": "notin"}


def _spec(policy: Document) -> Mapping[str, Any]:
    spec = policy.get("spec")
    return spec if isinstance(spec, Mapping) else {}


def _annotation(policy: Document, name: str) -> str:
    annotations = (policy.get("metadata") or {}).get("annotations") or {}
    return str(annotations.get(name) or "")


def selector(value: Mapping[str, Any] | None) -> str:
    """A label selector as kubectl writes it (app=web,tier in (back,front),!old); empty: it selects everything."""
    value = value or {}
    found = [f"{key}={wanted}" for key, wanted in (value.get("matchLabels") or {}).items()]
    for expression in value.get("matchExpressions") or []:
        key, operator = str(expression.get("key", "?")), str(expression.get("operator", "?"))
        if operator in _OPERATORS:
            values = ",".join(sorted(map(str, expression.get("values") or [])))
            found.append(f"{key} {_OPERATORS[operator]} ({values})")
        elif operator == "DoesNotExist":
            found.append(f"!{key}")
        else:
            found.append(key)
    return ",".join(sorted(found, key=lambda term: term.removeprefix("!")))


def pod_selector(policy: Document) -> str:
    """Which pods a NetworkPolicy is for; <none>: all of its namespace, as kubectl has it."""
    return selector(_spec(policy).get("podSelector")) or NONE


def policy_types(policy: Document) -> str:
    """Which directions it isolates: as declared, else ingress, and egress where it has such rules (Kubernetes API,
    NetworkPolicySpec.policyTypes).
    """
    spec = _spec(policy)
    declared = spec.get("policyTypes")
    if declared:
        return ",".join(map(str, declared))
    return "Ingress,Egress" if spec.get("egress") else "Ingress"


def tier(policy: Document) -> str:
    """The tier in which it is asked."""
    return (
        "NetworkPolicy" if policy.get("kind") == "NetworkPolicy" else str(_spec(policy).get("tier") or NONE)
    )


def priority(policy: Document) -> str:
    """Its place in its tier, the smallest first; NetworkPolicies have none."""
    value = _spec(policy).get("priority")
    return NONE if policy.get("kind") == "NetworkPolicy" or value is None else str(value)


def subject(policy: Document) -> str:
    """Which pods it is for, in words."""
    spec = _spec(policy)
    if policy.get("kind") == "NetworkPolicy":
        return _pods(selector(spec.get("podSelector")))
    value = spec.get("subject") or {}
    if value.get("namespaces") is not None:
        return _namespaces(selector(value["namespaces"]))
    pods = value.get("pods") or {}
    where = _namespaces(selector(pods.get("namespaceSelector")))
    return f"{_pods(selector(pods.get('podSelector')))} in {where}"


def _pods(labels: str) -> str:
    return f"pods {labels}" if labels else "all pods"


def _namespaces(labels: str) -> str:
    return f"namespaces {labels}" if labels else "all namespaces"


def staged(policy: Document) -> str:
    """true: it decides nothing, and what it would deny is told."""
    return "true" if _annotation(policy, _STAGED) == "true" else NONE


def audit(policy: Document) -> str:
    """Which of its verdicts are logged."""
    return _annotation(policy, _AUDIT) or NONE


def order(policy: Document) -> tuple[int, int, str, str]:
    """Sorts policies as they are asked: by tier and priority, then by name."""
    metadata = policy.get("metadata") or {}
    named = tier(policy)
    rank = _TIERS.index(named) if named in _TIERS else len(_TIERS)
    value = priority(policy)
    return (
        rank,
        int(value) if value.isdecimal() else 0,
        str(metadata.get("namespace") or ""),
        str(metadata.get("name") or ""),
    )
