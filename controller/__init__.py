# SPDX-License-Identifier: Apache-2.0
"""`sdn-controller`: the daemon that computes and writes what every switch holds."""
