# SPDX-License-Identifier: Apache-2.0
"""Label selectors in their text form, as ``kubectl get -l`` takes them.

Equality-based (``app=web``, ``app==web``, ``tier!=db``) and set-based (``env in (a,b)``, ``env notin (a)``,
``tls``, ``!tls``) requirements, separated by commas; all must hold. As in Kubernetes, ``!=`` and ``notin``
also hold for objects that lack the label.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sdn.model.names import InvalidObjectError, check_label_key, check_label_value

Operator = Literal["in", "notin", "exists", "absent"]

_SET_BASED = re.compile(r"\s*(?P<key>\S+)\s+(?P<operator>in|notin)\s*\((?P<values>[^()]*)\)\s*")
_EQUALITY = re.compile(r"\s*(?P<key>[^\s=!]+)\s*(?P<operator>==|=|!=)\s*(?P<value>[^\s=!]*)\s*")
_EXISTENCE = re.compile(r"\s*(?P<absent>!)?\s*(?P<key>[^\s=!()]+)\s*")
#: A comma outside parentheses.
_SEPARATOR = re.compile(r",(?![^()]*\))")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        match self.operator:
            case "exists":
                return self.key in labels
            case "absent":
                return self.key not in labels
            case "in":
                return self.key in labels and labels[self.key] in self.values
            case "notin":
                return self.key not in labels or labels[self.key] not in self.values


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """Conditions on an object's labels; without any it selects everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether all requirements hold."""
        return all(requirement.matches(labels) for requirement in self.requirements)


def parse_selector(text: str, path: str = "label_selector") -> LabelSelector:
    """The selector that ``text`` writes; InvalidObjectError names the part that is wrong."""
    if not text.strip():
        return LabelSelector()
    return LabelSelector(tuple(_requirement(part, path) for part in _SEPARATOR.split(text)))


def _requirement(text: str, path: str) -> Requirement:
    if found := _SET_BASED.fullmatch(text):
        values = [value.strip() for value in found["values"].split(",")]
        operator: Operator = "in" if found["operator"] == "in" else "notin"
        return _checked(path, Requirement(found["key"], operator, frozenset(values)))
    if found := _EQUALITY.fullmatch(text):
        operator = "notin" if found["operator"] == "!=" else "in"
        return _checked(path, Requirement(found["key"], operator, frozenset((found["value"],))))
    if found := _EXISTENCE.fullmatch(text):
        return _checked(path, Requirement(found["key"], "absent" if found["absent"] else "exists"))
    raise InvalidObjectError(
        path, f"{text.strip()!r} is no requirement: write key=value, key!=value, key in (a,b), key or !key"
    )


def _checked(path: str, requirement: Requirement) -> Requirement:
    check_label_key(path, requirement.key)
    for value in requirement.values:
        check_label_value(path, value)
    return requirement
