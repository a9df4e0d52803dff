# SPDX-License-Identifier: Apache-2.0
"""A whole cluster on one machine: every node a network namespace with an Open vSwitch and an agent of its own.

    /run/sdn-lab/NAME/            mode 0700; everything of one lab
        lab.json                  what was asked for, who brings it up, how far that came
        supervisord.{conf,sock}   starts every process, and again when it dies, as systemd would on a node
        node-N/                   databases and sockets of the node's switch and agent
        controller-N/             store and socket of a controller
        etcd-N/                   data of a member of the store, if the store is etcd
        pods/                     one file a pod
        logs/                     what every process wrote

    NAME-underlay       a Linux bridge, to which all the others are connected
    NAME-node-N         eth0 on the underlay; ovsdb-server, ovs-vswitchd, agent
    NAME-controller-N   eth0 on the underlay; controller
    NAME-etcd-N         eth0 on the underlay; member of the store
    NAME-outside        a machine beside the cluster: on the underlay, without a route to any pod
    NAME-pod-NS-POD     a pod, as a container runtime would make it

Names of all namespaces follow from what lab.json says, pods are written down before they are made, and nothing
exists outside these namespaces and that folder. So `down` needs nothing but the folder, whenever `up` was cut off.

What goes wrong in a cluster can be made to happen: faults.py (processes), partitions.py (the network), clocks.py.

The lab starts the daemons as processes and never imports them.
"""
