# SPDX-License-Identifier: Apache-2.0
"""`args.cni.labels` of the network configuration: a list of {"key": K, "value": V} (conventions document of the CNI
specification); an object {K: V} is taken too. Each one must be a label as Kubernetes has them.
"""

from __future__ import annotations

from typing import Any, Final

from agent.cni.errors import CniError, Code
from sdn.model.names import InvalidObjectError, check_labels

_PATH: Final = "args.cni.labels"


def parse(given: object) -> dict[str, str]:
    """What is given as the pod's labels; CniError INVALID_CONFIGURATION with the path of what is none."""
    pairs: list[tuple[Any, Any]]
    if given is None:
        pairs = []
    elif isinstance(given, dict):
        pairs = list(given.items())
    elif isinstance(given, list):
        pairs = []
        for index, item in enumerate(given):
            if not isinstance(item, dict) or set(item) != {"key", "value"}:
                raise CniError(
                    Code.INVALID_CONFIGURATION, f'{_PATH}[{index}]: must be {{"key": ..., "value": ...}}'
                )
            pairs.append((item["key"], item["value"]))
    else:
        raise CniError(Code.INVALID_CONFIGURATION, f"{_PATH}: must be a list of keys and values")
    labels: dict[str, str] = {}
    for key, value in pairs:
        if not _is_text(key) or not _is_text(value) or not key:
            raise CniError(
                Code.INVALID_CONFIGURATION, f"{_PATH}: key and value must be texts, got {key!r}: {value!r}"
            )
        labels[key] = value
    try:
        return check_labels(_PATH, labels)
    except InvalidObjectError as problem:
        raise CniError(Code.INVALID_CONFIGURATION, str(problem)) from None


def _is_text(value: object) -> bool:
    """Whether it is a text that can be written anywhere: JSON lets half a surrogate pair through, as "\\ud800"."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)
