# SPDX-License-Identifier: Apache-2.0
"""What the agent, the controller and `sdnctl` share. Imports neither daemon (contracts in pyproject.toml)."""

import os

# gRPC's core writes to stderr on its own ("Got goaway" when a peer is cut off), where daemons promise a JSON object on
# each line. It reads this when `grpc` is imported for the first time. Its errors, such as why it aborts, stay.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
