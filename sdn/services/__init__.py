# SPDX-License-Identifier: Apache-2.0
"""What Kubernetes says of Services, as pure functions: endpoints, which of them a node uses, names."""
