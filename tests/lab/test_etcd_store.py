# SPDX-License-Identifier: Apache-2.0
"""A controller that keeps its store in etcd: the same cluster, and a store that dies and comes back."""

from collections.abc import Iterator

import pytest

from sdn.lab.lab import Lab
from tests.lab.labs import add_pods, running, unreachable


@pytest.fixture(scope="module")
def etcd_lab() -> Iterator[Lab]:
    with running("etcd", nodes=2, store="etcd") as found:
        yield found


def test_pods_reach_each_other(etcd_lab: Lab) -> None:
    add_pods(etcd_lab, 4)
    assert not unreachable(etcd_lab.ping_matrix())


@pytest.mark.parametrize("names", [["etcd-1"], ["controller-1"], ["etcd-1", "controller-1"]], ids="+".join)
def test_a_store_or_controller_that_died_loses_nothing_and_pods_can_be_made_again(
    etcd_lab: Lab, names: list[str]
) -> None:
    before = {pod.name: pod.addresses for pod in etcd_lab.pods()}
    for name in names:
        etcd_lab.kill(name)
    add_pods(etcd_lab, 2, prefix="after-" + "-".join(names))
    after = {pod.name: pod.addresses for pod in etcd_lab.pods()}
    assert before.items() <= after.items()
    assert not unreachable(etcd_lab.ping_matrix())
