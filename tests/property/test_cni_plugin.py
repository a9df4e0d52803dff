# SPDX-License-Identifier: Apache-2.0
"""The plugin finds the agent's socket in any configuration as a parser of JSON does, though it seldom uses one."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

PLUGIN = Path(__file__).resolve().parents[2] / "agent" / "cni" / "sdn-cni"
KEY = "agentSocket"

texts = st.sampled_from(
    [KEY, "", "a", ":", ",", "{", "}", "[", "]", " ", '"', "\\", "\n", f'"{KEY}": "b', "é"]
)
plain = st.sampled_from([KEY, "", "a", ":", ",", "{", "}", "[", "]", " "])


def configurations(words: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    values = st.recursive(
        st.none() | st.integers() | words,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
        max_leaves=10,
    )
    return st.dictionaries(words, values)


def plugin() -> dict[str, Any]:
    """What the plugin defines. Its last statement, which runs it, is left out."""
    module = ast.parse(PLUGIN.read_text())
    del module.body[-1]
    names: dict[str, Any] = {}
    exec(compile(module, str(PLUGIN), "exec"), names)
    return names


DEFINED = plugin()


@given(config=configurations(plain) | configurations(texts), indent=st.sampled_from([None, 0, 2]))
def test_the_socket_is_found_as_a_parser_finds_it(config: dict[str, Any], indent: int | None) -> None:
    text = json.dumps(config, indent=indent, ensure_ascii=False).encode()
    path = config.get(KEY)
    expected = path.encode() if isinstance(path, str) and path else DEFINED["SOCKET"]
    assert DEFINED["agent_socket"](text) == expected
