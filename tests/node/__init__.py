# SPDX-License-Identifier: Apache-2.0
"""The agent on a node: a network namespace with an Open vSwitch of its own, and real pods' namespaces."""
