# SPDX-License-Identifier: Apache-2.0
"""Files of objects: one or several YAML documents, or JSON; a List is what is in it.

Everything is read before anything is sent: a file with one unreadable document changes nothing. What the fields mean is
the controller's business.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sdn.cli.errors import UsageError


def read(files: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """All objects of all files ("-" is stdin), each with where it stands; UsageError says which document is wrong."""
    found: list[tuple[str, dict[str, Any]]] = []
    for file in files:
        where = "stdin" if file == "-" else file
        try:
            text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        except OSError as problem:
            raise UsageError(f"{file}: {problem.strerror or problem}") from None
        except UnicodeDecodeError as problem:
            raise UsageError(f"{where} is not UTF-8 text: {problem.reason} at byte {problem.start}") from None
        objects = list(_objects(where, text))
        if not objects:
            raise UsageError(f"{where} has no object in it")
        found += objects
    return found


def _objects(where: str, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, document in enumerate(_documents(where, text), 1):
        place = f"{where}, document {number}"
        if document is None:  # what stands between two separators may be nothing
            continue
        if not isinstance(document, dict):
            raise UsageError(
                f"{place}: an object is a map with apiVersion, kind and metadata, not a {_noun(document)}"
            )
        if str(document.get("kind", "")).endswith("List") and isinstance(document.get("items"), list):
            for index, item in enumerate(document["items"]):
                if not isinstance(item, dict):
                    raise UsageError(f"{place}: items[{index}] is not a map but a {_noun(item)}")
                yield f"{place}, items[{index}]", item
        else:
            yield place, document


def _documents(where: str, text: str) -> list[Any]:
    if text.lstrip()[:1] in ("{", "["):
        try:
            value = json.loads(text)
        except json.JSONDecodeError as problem:
            first_error = f"{problem.msg} in line {problem.lineno}, column {problem.colno}"
        else:
            return value if isinstance(value, list) else [value]
        # YAML may begin with a brace, too; and JSON documents may stand one after the other with "---" between.
        if "---" not in text:
            raise UsageError(f"{where} is not JSON: {first_error}")
    import yaml

    try:
        return list(yaml.load_all(text, Loader=_loader()))
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UsageError(f"{where} is not YAML: {problem.problem or problem.context}{place}") from None
    except yaml.YAMLError as problem:
        raise UsageError(f"{where} is not YAML: {' '.join(str(problem).split())}") from None


def _loader() -> Any:
    """YAML as Kubernetes reads it: a date stays the text that it is, and a key may stand once only."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key_node, _ in node.value:
                key = self.construct_object(key_node, deep=True)
                if not isinstance(key, str):
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key!r} is not a text", key_node.start_mark
                    )
                if key in seen and key != "<<":
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key!r} stands twice in one map", key_node.start_mark
                    )
                seen.add(key)
            return super().construct_mapping(node, deep)

    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return Loader


def _noun(value: object) -> str:
    return {
        str: "text",
        list: "list",
        int: "number",
        float: "number",
        bool: "boolean",
        type(None): "null",
    }.get(type(value), type(value).__name__)
