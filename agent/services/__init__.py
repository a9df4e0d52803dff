# SPDX-License-Identifier: Apache-2.0
"""Services as one node's agent sees them.

`watch` follows what a controller tells, `cache` keeps it on disk for a time without one, `table` holds it and tells
whoever wants to know. The switch translates and balances, programmed by the controller; what the node's own stack has
to add is derived in `wanted` and kept in force by `plane`: NodePorts, routes, health checks, announcements.
"""
