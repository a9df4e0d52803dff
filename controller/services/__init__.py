# SPDX-License-Identifier: Apache-2.0
"""The gRPC services of the controller: from messages to the engine's calls, from its errors to status
codes.
"""
