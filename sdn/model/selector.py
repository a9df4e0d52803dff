# SPDX-License-Identifier: Apache-2.0
"""Label selectors as objects hold them: ``matchLabels`` and ``matchExpressions`` (Kubernetes API reference, v1
LabelSelector). The text form that people type is sdn/model/labels.py; both mean a :class:`LabelSelector`.
"""

from __future__ import annotations

import msgspec

from sdn.model.labels import LabelSelector, Operator, Requirement

#: Operators of matchExpressions, with what they are called in the text form.
OPERATORS: dict[str, Operator] = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "absent"}


class LabelSelectorRequirement(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A member of ``matchExpressions``."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


class LabelSelectorSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A selector as declared. Empty, it selects everything; where none is given the field that holds it is None."""

    match_labels: dict[str, str] = msgspec.field(default_factory=dict)
    match_expressions: tuple[LabelSelectorRequirement, ...] = ()

    def selector(self) -> LabelSelector:
        """What it means, in one order however it was written: selectors that say the same are mostly equal."""
        wanted = {Requirement(key, "in", frozenset((value,))) for key, value in self.match_labels.items()}
        for each in self.match_expressions:
            wanted.add(Requirement(each.key, OPERATORS[each.operator], frozenset(each.values)))
        return LabelSelector(
            tuple(sorted(wanted, key=lambda one: (one.key, one.operator, sorted(one.values))))
        )
