# SPDX-License-Identifier: Apache-2.0
"""Tests of the kernel datapath, under Debian's stock kernel in qemu (docs/testing-kernel.md)."""
