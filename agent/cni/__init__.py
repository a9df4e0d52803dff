# SPDX-License-Identifier: Apache-2.0
"""The Container Network Interface: what runtimes ask (requests, configuration) and what they are answered.

Everything here is a function from values to values and knows nothing of this node; `agent.verbs` does the
work. The executable that runtimes call, `sdn-cni`, lies here too and imports nothing of the rest.
"""
