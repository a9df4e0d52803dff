# SPDX-License-Identifier: Apache-2.0
"""What Services are given: ClusterIPs, node ports, LoadBalancer addresses, numbers. Nothing here does I/O."""
