# SPDX-License-Identifier: Apache-2.0
#
# Two nodes in a guest, made of Open vSwitch's own commands only: what the kernel itself must be able to do before our
# programs are asked to do it. Sourced by the scripts of test_boot.py.
#
#   kq-node-1  172.31.0.1 ---- veth ---- 172.31.0.2  kq-node-2     each with a vswitchd and a bridge br-int (system)
#   kq-pod-1   10.99.0.1, fd99::1        kq-pod-2  10.99.0.2, fd99::2

export PATH="$PATH:/usr/share/openvswitch/scripts"

# in_node N COMMAND...: in the network namespace of node N, speaking to the Open vSwitch of node N
in_node() {
    local node=$1
    shift
    OVS_RUNDIR=/run/kq/$node OVS_DBDIR=/run/kq/$node OVS_LOGDIR=/run/kq/$node ip netns exec "kq-node-$node" "$@"
}

start_switch() {
    local node=$1
    mkdir -p "/run/kq/$node"
    in_node "$node" ovsdb-tool create "/run/kq/$node/conf.db" /usr/share/openvswitch/vswitch.ovsschema
    in_node "$node" ovsdb-server "/run/kq/$node/conf.db" --remote="punix:/run/kq/$node/db.sock" \
        --pidfile --detach --log-file --no-chdir -vconsole:off
    in_node "$node" ovs-vsctl --no-wait init
    in_node "$node" ovs-vswitchd --pidfile --detach --log-file --no-chdir -vconsole:off
    in_node "$node" ovs-vsctl add-br br-int -- set bridge br-int datapath_type=system fail_mode=secure
}

add_pod() {
    local node=$1
    ip netns add "kq-pod-$node"
    ip -n "kq-node-$node" link add "pod$node" type veth peer name eth0 netns "kq-pod-$node"
    ip -n "kq-node-$node" link set "pod$node" up
    ip -n "kq-pod-$node" address add "10.99.0.$node/24" dev eth0
    ip -n "kq-pod-$node" address add "fd99::$node/64" dev eth0 nodad
    ip -n "kq-pod-$node" link set eth0 mtu 1400 up
    ip -n "kq-pod-$node" link set lo up
    in_node "$node" ovs-vsctl add-port br-int "pod$node" -- set interface "pod$node" ofport_request=16
}

two_nodes() {
    ip netns add kq-node-1
    ip netns add kq-node-2
    ip -n kq-node-1 link add uplink type veth peer name uplink netns kq-node-2
    for node in 1 2; do
        ip -n "kq-node-$node" address add "172.31.0.$node/24" dev uplink
        ip -n "kq-node-$node" link set uplink up
        ip -n "kq-node-$node" link set lo up
        start_switch "$node"
        add_pod "$node"
    done
}

# tunnel TYPE: every frame of a pod goes to the other node
tunnel() {
    for node in 1 2; do
        in_node "$node" ovs-vsctl --if-exists del-port tun0 -- add-port br-int tun0 -- \
            set interface tun0 "type=$1" options:remote_ip=flow options:key=flow ofport_request=2
        in_node "$node" ovs-ofctl -O OpenFlow15 del-flows br-int
        in_node "$node" ovs-ofctl -O OpenFlow15 add-flow br-int \
            "in_port=16,actions=set_field:7->tun_id,set_field:172.31.0.$((3 - node))->tun_dst,output:2"
        in_node "$node" ovs-ofctl -O OpenFlow15 add-flow br-int in_port=2,tun_id=7,actions=output:16
    done
}

# virtual_address: pod 1 reaches pod 2 also as 10.99.0.77, which the conntrack of node 1 translates in zone 9
virtual_address() {
    in_node 1 ovs-ofctl -O OpenFlow15 --bundle add-flows br-int - <<'FLOWS'
priority=40000,in_port=16,ip,actions=ct(table=1,zone=9,nat)
priority=40000,in_port=2,tun_id=7,ip,actions=ct(table=1,zone=9,nat)
table=1,priority=10,ct_state=+trk+new,in_port=16,ip,nw_dst=10.99.0.77,actions=ct(commit,zone=9,table=2,nat(dst=10.99.0.2))
table=1,priority=5,ct_state=+trk+est,ip,actions=resubmit(,2)
table=2,in_port=16,actions=set_field:7->tun_id,set_field:172.31.0.2->tun_dst,output:2
table=2,in_port=2,actions=output:16
FLOWS
    mac=$(ip netns exec kq-pod-2 cat /sys/class/net/eth0/address)
    ip -n kq-pod-1 neighbour replace 10.99.0.77 lladdr "$mac" dev eth0
}

# no_nodes: nothing is left of them
no_nodes() {
    for node in 1 2; do
        for daemon in ovs-vswitchd ovsdb-server; do
            pid=$(cat "/run/kq/$node/$daemon.pid")
            kill "$pid"
            while kill -0 "$pid" 2> /dev/null; do sleep 0.1; done
        done
        ip netns del "kq-pod-$node"
        ip netns del "kq-node-$node"
    done
    rm -r /run/kq
}
