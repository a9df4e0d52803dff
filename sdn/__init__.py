# SPDX-License-Identifier: Apache-2.0
"""What the agent, the controller and `sdnctl` share. Imports neither daemon (contracts in pyproject.toml)."""
