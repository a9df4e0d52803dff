# SPDX-License-Identifier: Apache-2.0
"""`sdn-agent`: the daemon of a node."""

import sdn as sdn  # before gRPC is imported: sdn/__init__.py
