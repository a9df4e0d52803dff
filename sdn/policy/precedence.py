# SPDX-License-Identifier: Apache-2.0
"""The order of rules inside a tier, as one number that depends on the rule alone.

Rules of ClusterNetworkPolicies are ordered by their policy's priority, then by their index, then by their action; 1001
priorities, 25 rules each and three actions are more than OpenFlow has priorities. But of two neighbouring rules with
one action the order means nothing. So the actions come in turns, Deny, Accept, Pass for rules with an even index and
Pass, Accept, Deny for those with an odd one, and where an index ends with the action that the next begins with, both
share a level: 51 levels a priority. All rules of one level have one action.
"""

from __future__ import annotations

from typing import Final

from sdn.model.clusternetworkpolicy import MAX_ITEMS, MAX_PRIORITY
from sdn.policy.values import Action

#: Levels of one priority.
LEVELS_EACH: Final = 2 * MAX_ITEMS + 1
#: Levels of a tier of ClusterNetworkPolicies: 0 is asked first.
LEVELS: Final = LEVELS_EACH * (MAX_PRIORITY + 1)
_EVEN: Final = {Action.DENY: 0, Action.ACCEPT: 1, Action.PASS: 2}
_ODD: Final = {Action.PASS: 0, Action.ACCEPT: 1, Action.DENY: 2}


def level(priority: int, index: int, action: Action) -> int:
    """The level of the rule with this index (from 0) in its direction of a policy with this priority."""
    within = (_ODD if index % 2 else _EVEN)[action]
    return priority * LEVELS_EACH + 2 * index + within
