# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: each measures ours beside a peer in the same run. `python -m tests.bench --help` lists them."""
