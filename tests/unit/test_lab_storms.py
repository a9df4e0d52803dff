# SPDX-License-Identifier: Apache-2.0
"""Random partitions are the same for the same seed, of all kinds, and leave the ways between nodes alone."""

from __future__ import annotations

import random

from sdn.lab.spec import LabSpec
from tests.lab.storms import Partition, Storm

SPEC = LabSpec(name="storms", nodes=3, controllers=3, store="etcd", etcd=3)


def partitions(seed: int, count: int) -> list[Partition]:
    storm = Storm(SPEC, random.Random(seed))
    return [storm.next() for _ in range(count)]


def test_the_same_seed_gives_the_same_partitions() -> None:
    assert partitions(7, 50) == partitions(7, 50)
    assert partitions(7, 50) != partitions(8, 50)


def test_nodes_are_never_cut_from_each_other_nor_from_the_store_that_they_do_not_use() -> None:
    machines = {machine.name for machine in SPEC.machines}
    for partition in partitions(1, 1000):
        for cut in partition.cuts:
            ends = {cut.one, cut.other} - {""}
            assert ends <= machines
            assert cut.one.startswith(("controller", "etcd")) or cut.other.startswith("controller"), str(
                partition
            )
            assert cut.one != cut.other
            assert cut.other or not cut.one_way


def test_all_kinds_come_one_way_too_and_now_and_then_all_is_whole() -> None:
    found = partitions(1, 1000)
    whole = [partition for partition in found if not partition.cuts]
    assert 10 < len(whole) < 100
    cuts = {cut for partition in found for cut in partition.cuts}
    kinds = {(cut.one.split("-")[0], cut.other.split("-")[0], cut.one_way) for cut in cuts}
    assert {
        ("controller", "", False),
        ("etcd", "", False),
        ("controller", "controller", False),
        ("controller", "etcd", False),
        ("controller", "node", False),
        ("controller", "controller", True),
        ("controller", "node", True),
        ("node", "controller", True),
        ("etcd", "controller", True),
    } <= kinds
    assert all(0.2 <= partition.seconds <= 8 for partition in found)


def test_a_partition_is_told_in_a_line() -> None:
    assert "whole for" in "; ".join(map(str, partitions(1, 200)))
    assert " -> " in "; ".join(map(str, partitions(1, 200)))
