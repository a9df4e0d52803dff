# SPDX-License-Identifier: Apache-2.0
"""The library `ovs`, imported without eventlet, which it would take up only because it happens to be there.

eventlet (a dependency of another library's unused mode) costs a quarter of the agent's start-up, warns on
stderr that it is deprecated, and is of no use to a program with ordinary threads.
"""

import sys

_ABSENT = "eventlet" not in sys.modules
if _ABSENT:
    sys.modules["eventlet"] = None  # type: ignore[assignment]  # importing it fails, as if it was not installed
try:
    from ovs import jsonrpc, poller, stream
    from ovs.db import idl
finally:
    if _ABSENT:
        del sys.modules["eventlet"]

__all__ = ["idl", "jsonrpc", "poller", "stream"]
