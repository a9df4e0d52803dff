# SPDX-License-Identifier: Apache-2.0
"""What a reported packet was reported for: from the number that its flow left in a register to the policy and its rule.

A report may be older than the last change: then nothing is said, rather than something wrong.
"""

from __future__ import annotations

from controller.audit import Sighting
from controller.cluster import Cluster, key_of
from controller.policies import Policies
from controller.verdicts import Ruling, Verdicts
from sdn.model.address import Address
from sdn.pipeline.features.policy import owner_of
from sdn.pipeline.owner import Feature, cookie
from sdn.pipeline.tables import EGRESS_POLICY, INGRESS_POLICY
from sdn.policy.values import Action, Direction, Tier

_DIRECTION = {EGRESS_POLICY.number: Direction.EGRESS, INGRESS_POLICY.number: Direction.INGRESS}


class Rulings:
    """Answers what verdicts need to know of the cluster. Runs in the asyncio thread."""

    def __init__(self, cluster: Cluster, policies: Policies) -> None:
        self._cluster = cluster
        self._policies = policies

    def serve(self, verdicts: Verdicts) -> None:
        """Let verdicts ask here."""
        verdicts.node_of = self._cluster.node_of_switch
        verdicts.ruling_of = self.ruling_of
        verdicts.pod_of = self.pod_of

    def pod_of(self, address: Address) -> str:
        """The pod that has an address, as "namespace/name"; empty: none."""
        record = self._cluster.attachment_at(str(address))
        return "" if record is None else f"{record.pod_namespace}/{record.pod_name}"

    def ruling_of(self, sighting: Sighting) -> Ruling | None:
        """What a sighting was reported for; None: that is not known any more."""
        if sighting.rule == 0:
            return self._isolation(sighting)
        cell = self._policies.engine.rule(sighting.rule)
        if cell is None:
            return None
        stage = cell.stage
        return Ruling(cell.owner, cell.rule, stage.tier, stage.direction, cell.action, stage.staged)

    def _isolation(self, sighting: Sighting) -> Ruling | None:
        direction = _DIRECTION.get(sighting.table)
        if direction is None:
            return None
        address = sighting.source if direction is Direction.EGRESS else sighting.destination
        record = self._cluster.attachment_at(str(address))
        if record is None:
            return None
        for staged in (False, True):
            cell = self._policies.engine.isolation(key_of(record), direction, staged=staged)
            if cell is not None and cookie(Feature.POLICY, owner_of(cell.owner)) == sighting.cookie:
                return Ruling(cell.owner, "", Tier.NETWORK_POLICY, direction, Action.DENY, staged)
        return None
