# SPDX-License-Identifier: Apache-2.0
"""Writes docs/settings.md from the settings classes of the daemons, so that the page cannot drift from the code.

python docs/generate_settings.py            writes the page
python docs/generate_settings.py --check    writes nothing; fails where the page differs from what the code says
"""

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from agent.settings import PROGRAM as AGENT
from agent.settings import AgentSettings
from controller.settings import ControllerSettings
from sdn.settings import Field, Settings, as_written, describe

INTRODUCTION = """\
# Settings

Generated from the code by `docs/generate_settings.py`.

Each setting has one name and three sources: a flag, an environment variable, a key of one TOML file (the name with
underscores). Flags win over the environment, the environment over the file, the file over the default. The file is the
one that `--config` names, or else the environment variable that ends in `_CONFIG`, or else the one given below if it
exists. Lists are written with commas in flags and environment, as arrays in TOML. What is unknown or does not fit is
refused with its name, and the daemon ends with exit code 2.

On SIGHUP a daemon reads all of it again and applies `log_level`; it names what else has changed and needs a restart.
"""


def page() -> str:
    """The whole page."""
    lines = [INTRODUCTION]
    for program, cls in ((AGENT, AgentSettings), ("sdn-controller", ControllerSettings)):
        lines.append("\n".join(section(program, cls)) + "\n")
    return "\n".join(lines)


def section(program: str, cls: type[Settings]) -> Iterator[str]:
    """One daemon's settings as a table."""
    fields = describe(cls, program)
    yield f"## {program}"
    yield ""
    yield f"File: `/etc/sdn/{program.removeprefix('sdn-')}.toml`"
    yield ""
    yield "| flag | environment | default | meaning |"
    yield "|---|---|---|---|"
    for field in fields:
        meaning = field.description.replace("|", "\\|")
        yield f"| `{field.flag}` | `{field.environment}` | {default(field)} | {meaning} |"


def default(field: Field) -> str:
    """A default as text that is the same on every machine."""
    if field.required:
        return "required"
    if field.default in ("", [], (), None):
        return "empty"
    if field.default == socket.gethostname().lower():
        return "the host's name"
    return f"`{as_written(field.default)}`"


if __name__ == "__main__":
    PAGE = Path(__file__).with_name("settings.md")
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page(), encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page():
        sys.exit("docs/settings.md is not what the settings say; run: python docs/generate_settings.py")
