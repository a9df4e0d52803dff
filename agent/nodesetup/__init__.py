# SPDX-License-Identifier: Apache-2.0
"""The node's own set-up: bridges, uplink, tunnel and gateway port, routes, masquerade. Everything but the pods.

Each part is a reconciliation: it looks at what is there, makes what is missing, leaves the rest alone, and so
can run at any time and any number of times: at the agent's start, when a controller tells something new, when
ovs-vswitchd or ovsdb-server comes back. `setup` says in which order.
"""
