# SPDX-License-Identifier: Apache-2.0
"""Generated from proto/sdn/v1 by scripts/generate-proto; do not edit."""
