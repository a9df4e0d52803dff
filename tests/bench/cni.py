# SPDX-License-Identifier: Apache-2.0
"""Executes CNI plugins as a container runtime does, and says how long each execution took."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

REFERENCE: Final = Path("/usr/lib/cni")
"""Where Debian puts the reference plugins."""


class CniError(RuntimeError):
    """A plugin said no; the text is its own error object."""


@dataclass(frozen=True)
class Plugin:
    """A plugin with its network configuration: what a runtime executes for each pod."""

    executable: Path
    config: Mapping[str, Any]
    environ: Mapping[str, str] = field(default_factory=dict)

    def call(self, command: str, container: str, netns: str, args: str = "") -> tuple[float, dict[str, Any]]:
        """One execution: seconds from before the fork to after the exit, and the result that it printed."""
        environ = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": netns,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": f"{self.executable.parent}:{REFERENCE}",
            "CNI_ARGS": args,
            **self.environ,
        }
        config = json.dumps(dict(self.config)).encode()
        started = time.perf_counter()
        done = subprocess.run(
            [str(self.executable)], input=config, env=environ, capture_output=True, check=False
        )
        seconds = time.perf_counter() - started
        if done.returncode != 0:
            text = (done.stdout or done.stderr).decode(errors="replace").strip()
            raise CniError(f"{self.executable.name} {command} {container}: exit {done.returncode}: {text}")
        return seconds, json.loads(done.stdout) if done.stdout.strip() else {}


def kubernetes_args(namespace: str, pod: str, container: str) -> str:
    """CNI_ARGS as containerd sends them for a pod."""
    return (
        f"IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={pod};"
        f"K8S_POD_INFRA_CONTAINER_ID={container};K8S_POD_UID={container}"
    )
