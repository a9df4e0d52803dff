# SPDX-License-Identifier: Apache-2.0
"""Reading and checking a label selector, as a Kubernetes API server does (API reference, v1 LabelSelector)."""

from __future__ import annotations

from sdn.model.names import InvalidObjectError, check_label_key, check_label_value, check_labels
from sdn.model.reading import Fields
from sdn.model.selector import OPERATORS, LabelSelectorRequirement, LabelSelectorSpec

#: Operators that compare a label's value with those that are given.
_WITH_VALUES = ("In", "NotIn")


def read_selector(parent: Fields, name: str) -> LabelSelectorSpec | None:
    """The selector in this field; None when absent, which is not the same as an empty one. InvalidObjectError names
    the field.
    """
    fields = parent.inner(name, "a label selector")
    if fields is None:
        return None
    selector = LabelSelectorSpec(
        match_labels=check_labels(fields.path("matchLabels"), fields.raw("matchLabels")),
        match_expressions=tuple(
            _read_requirement(Fields(path, member, "a member of matchExpressions"))
            for path, member in fields.items("matchExpressions")
        ),
    )
    fields.finish()
    return selector


def _read_requirement(fields: Fields) -> LabelSelectorRequirement:
    requirement = LabelSelectorRequirement(
        key=fields.text("key"),
        operator=fields.chosen("operator", OPERATORS),
        values=fields.texts("values"),
    )
    fields.finish()
    if not requirement.key:
        raise InvalidObjectError(fields.path("key"), "must be given")
    check_label_key(fields.path("key"), requirement.key)
    if requirement.operator in _WITH_VALUES and not requirement.values:
        raise InvalidObjectError(
            fields.path("values"), f"at least one must be given for operator {requirement.operator}"
        )
    if requirement.values and requirement.operator not in _WITH_VALUES:
        raise InvalidObjectError(
            fields.path("values"), f"is not possible for operator {requirement.operator}"
        )
    for index, value in enumerate(requirement.values):
        check_label_value(f"{fields.path('values')}[{index}]", value)
    return requirement
