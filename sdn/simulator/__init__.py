# SPDX-License-Identifier: Apache-2.0
"""Runs a packet through a set of flows and groups, no switch needed, and says where it comes out and why.

What lives here: the meaning of the flow language (``sdn/pipeline``), held against ``ofproto/trace`` of a real
switch by property tests. What may not live here: any knowledge of what our own tables are for; the simulator
runs whatever flows it is given. Everything is pure: values in, values out, no clock, no I/O.

- ``packet``: a packet as a value, and constructors that know what a sensible one looks like;
- ``text``: packets from and to the text that ``ofproto/trace`` takes;
- ``lookup``: flow tables, indexed so that a lookup does not read all flows;
- ``conjunction``: which conjunctive matches the flows that a packet meets satisfy together;
- ``conntrack``: what the connection tracker says, given by the caller;
- ``learning``: the flows that packets leave behind;
- ``journey``: the outcome, step by step, and its rendering;
- ``translation`` (with ``buckets`` and ``values``): what each action means, in Open vSwitch's way;
- ``switch``: the machine itself.
"""
