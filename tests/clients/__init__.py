# SPDX-License-Identifier: Apache-2.0
"""Container runtimes as clients of the plugin: what a node's real containerd does with it, end to end."""
