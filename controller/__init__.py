# SPDX-License-Identifier: Apache-2.0
"""`sdn-controller`: the daemon that computes and writes what every switch holds."""

import sdn as sdn  # before gRPC is imported: sdn/__init__.py
