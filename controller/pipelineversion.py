# SPDX-License-Identifier: Apache-2.0
"""Which pipeline a switch holds, by the flow that says it (:mod:`sdn.pipeline.version`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from controller.desired import Key
from sdn.openflow import flow_image
from sdn.pipeline.owner import Owner
from sdn.pipeline.version import version_flow

#: Nothing says it: the switch is empty, or was written before pipelines had versions.
NO_VERSION: Final = 0

_KEY: Final = flow_image(version_flow(Owner("Node", "", ""), NO_VERSION))[0]
#: The match ends with the number.
_NUMBER: Final = slice(len(_KEY) - 8, len(_KEY))
_BEFORE: Final = _KEY[: _NUMBER.start]


def version_in(keys: Iterable[Key]) -> int:
    """The version that flows with these keys say; the highest one, should there be several."""
    found = (
        int.from_bytes(key[_NUMBER], "big")
        for key in keys
        if isinstance(key, bytes) and len(key) == len(_KEY) and key.startswith(_BEFORE)
    )
    return max(found, default=NO_VERSION)
