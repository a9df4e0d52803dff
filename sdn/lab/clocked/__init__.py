# SPDX-License-Identifier: Apache-2.0
"""A folder for PYTHONPATH: what Python does first in a process that has a clock of its own."""
