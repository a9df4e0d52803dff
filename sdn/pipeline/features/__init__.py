# SPDX-License-Identifier: Apache-2.0
"""One file a feature: each emits the flows that a node, a pod or a peer needs of it, and nothing else."""
