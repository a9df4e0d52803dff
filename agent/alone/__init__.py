# SPDX-License-Identifier: Apache-2.0
"""A node without controllers: its switch's flows and groups are kept on disk, and put back when it has lost them."""
