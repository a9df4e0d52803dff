# SPDX-License-Identifier: Apache-2.0
"""sdnctl: what a person or a script asks of the network, and the lab.

`main.py` has the program: its global options, exit codes and how errors are told. One file for each group of commands;
`client.py` speaks gRPC, `output.py` prints. Modules that take long to load (gRPC, YAML, rich's tables) are loaded when
a command needs them, so that `--help` and completion are quick.
"""
