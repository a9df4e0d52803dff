# SPDX-License-Identifier: Apache-2.0
"""NetworkPolicy: which connections the pods of a namespace may have (networking.k8s.io/v1).

Fields and meanings are those of the Kubernetes API reference. Two annotations are ours: :data:`AUDIT` and
:data:`STAGED`; ClusterNetworkPolicy knows them too.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from sdn.model.meta import ObjectMeta
from sdn.model.names import InvalidObjectError
from sdn.model.selector import LabelSelectorSpec

INGRESS = "Ingress"
EGRESS = "Egress"

#: Which verdicts are logged: "accept", "deny" or both, separated by a comma.
AUDIT = "sdn/audit"
#: "true": the policy is not in force, and what it would deny is counted and logged.
STAGED = "sdn/staged"
_VERDICTS = ("accept", "deny")


class IPBlock(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A range of addresses, without the ranges in ``except_`` (``except``), which lie within it. All are in their
    canonical form, without bits set after the prefix.
    """

    cidr: str
    except_: tuple[str, ...] = msgspec.field(default=(), name="except")


class NetworkPolicyPeer(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Who may be on the other end. ``ip_block`` stands alone (``ipBlock``). Of the selectors at least one is given:
    ``pod_selector`` alone means pods of the policy's namespace, ``namespace_selector`` alone all pods of these
    namespaces, both: pods that the one selects in namespaces that the other selects.
    """

    pod_selector: LabelSelectorSpec | None = None
    namespace_selector: LabelSelectorSpec | None = None
    ip_block: IPBlock | None = msgspec.field(default=None, name="ipBlock")


class NetworkPolicyPort(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Destination ports. ``protocol`` "TCP", "UDP", "SCTP"; empty: TCP. ``port`` None: all ports of the protocol; text:
    the port of that name of the pod that the connection goes to. ``end_port``: the last of a range, 0: none.
    """

    protocol: str = ""
    port: int | str | None = None
    end_port: int = 0


class NetworkPolicyIngressRule(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What is let in. Without ``from_`` (``from``) from everywhere, without ``ports`` all traffic."""

    from_: tuple[NetworkPolicyPeer, ...] = msgspec.field(default=(), name="from")
    ports: tuple[NetworkPolicyPort, ...] = ()


class NetworkPolicyEgressRule(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What is let out. Without ``to`` to everywhere, without ``ports`` all traffic."""

    to: tuple[NetworkPolicyPeer, ...] = ()
    ports: tuple[NetworkPolicyPort, ...] = ()


class NetworkPolicySpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """``pod_selector`` selects the pods that it is for. ``policy_types`` as declared; see :meth:`isolates`."""

    pod_selector: LabelSelectorSpec = msgspec.field(default_factory=LabelSelectorSpec)
    ingress: tuple[NetworkPolicyIngressRule, ...] = ()
    egress: tuple[NetworkPolicyEgressRule, ...] = ()
    policy_types: tuple[str, ...] = ()

    def isolates(self, direction: str) -> bool:
        """Whether the pods that it selects are isolated in this direction. Without policyTypes: always for ingress, for
        egress when there are egress rules (Kubernetes documentation, "The NetworkPolicy resource").
        """
        if self.policy_types:
            return direction in self.policy_types
        return direction == INGRESS or bool(self.egress)


class NetworkPolicy(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """See the module."""

    KIND: ClassVar[str] = "NetworkPolicy"
    API_VERSION: ClassVar[str] = "networking.k8s.io/v1"
    NAMESPACED: ClassVar[bool] = True

    metadata: ObjectMeta
    spec: NetworkPolicySpec = msgspec.field(default_factory=NetworkPolicySpec)


def check_annotations(metadata: ObjectMeta) -> None:
    """Of a policy the annotations that are ours. InvalidObjectError names the annotation."""
    audit = metadata.annotations.get(AUDIT)
    if audit is not None and not all(word.strip() in _VERDICTS for word in audit.split(",")):
        raise InvalidObjectError(
            f'metadata.annotations["{AUDIT}"]', f"{audit!r} must be accept, deny or both: accept,deny"
        )
    staged_text = metadata.annotations.get(STAGED)
    if staged_text not in (None, "true", "false"):
        raise InvalidObjectError(
            f'metadata.annotations["{STAGED}"]', f"{staged_text!r} must be true or false"
        )


def audited(metadata: ObjectMeta) -> frozenset[str]:
    """Which verdicts of a policy are to be logged: of "accept" and "deny"."""
    return frozenset(word.strip() for word in metadata.annotations.get(AUDIT, "").split(",") if word.strip())


def staged(metadata: ObjectMeta) -> bool:
    """Whether a policy is staged: looked at, not in force."""
    return metadata.annotations.get(STAGED) == "true"
