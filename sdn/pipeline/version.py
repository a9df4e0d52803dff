# SPDX-License-Identifier: Apache-2.0
"""Which pipeline this is: another number with each change of the tables, or of what entries mean to one another.

It stands in the switch, as a flow that no packet meets, among the others that a controller writes in one bundle: so a
switch says itself which pipeline it forwards by, at every moment and to whoever asks. And it is told with a
controller's record, since of several controllers those with the highest one own the switches
(controller/ha/assignment.py).
"""

from __future__ import annotations

from sdn.pipeline.flow import Flow
from sdn.pipeline.match import match
from sdn.pipeline.owner import Owner
from sdn.pipeline.registers import Priority
from sdn.pipeline.tables import CLASSIFICATION

#: 1: up to the first release.
PIPELINE_VERSION = 1


def version_flow(owner: Owner, version: int = PIPELINE_VERSION) -> Flow:
    """The flow that says it: in the first table of any pipeline. Packets come with metadata 0, which nothing sets."""
    return CLASSIFICATION.flow(
        match(metadata=version),
        (),
        owner=owner,
        why=f"no packet: this is version {version} of the pipeline",
        priority=Priority.LOW,
    )
