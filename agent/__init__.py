# SPDX-License-Identifier: Apache-2.0
"""`sdn-agent`: the daemon of a node."""
