# SPDX-License-Identifier: Apache-2.0
"""Reading the fields of a decoded document, one by one, each with its path.

A :class:`Fields` is one map of the document. Each field is taken by its type; ``finish`` refuses what nobody
took. null stands for an absent field everywhere, as in Kubernetes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sdn.model.names import InvalidObjectError, type_name


class Fields:
    """The fields of the map at ``path``; ``what`` names the map in refusals ("a Service's spec")."""

    def __init__(self, path: str, document: object, what: str) -> None:
        if not isinstance(document, Mapping):
            raise InvalidObjectError(path, f"must be a map, got {type_name(document)}")
        self._path = path
        self._document: Mapping[Any, Any] = document
        self._what = what
        self._taken: set[str] = set()

    def path(self, name: str) -> str:
        """The path of a field of this map."""
        return f"{self._path}.{name}" if self._path else name

    def raw(self, name: str) -> Any:
        """The value as it stands; None when absent."""
        self._taken.add(name)
        return self._document.get(name)

    def given(self, name: str) -> bool:
        """Whether the field is there, be it empty."""
        return self.raw(name) is not None

    def only(self, names: Collection[str]) -> str:
        """Which of these fields is given. Exactly one must be, and the map can have no other field."""
        self.finish(also=names)
        given = [name for name in names if self.given(name)]
        if len(given) != 1:
            got = f", not {' and '.join(given)}" if given else ""
            raise InvalidObjectError(self._path, f"exactly one of {', '.join(names)} must be given{got}")
        return given[0]

    def text(self, name: str) -> str:
        """Text; empty when absent."""
        value = self.raw(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise InvalidObjectError(self.path(name), f"must be text, got {type_name(value)}")
        return value

    def choice(self, name: str, choices: Collection[str]) -> str:
        """One of ``choices``; empty when absent or empty."""
        value = self.text(name)
        if value:
            check_choice(self.path(name), value, choices)
        return value

    def chosen(self, name: str, choices: Collection[str]) -> str:
        """One of ``choices``, which must be given."""
        value = self.text(name)
        if not self.given(name):
            raise InvalidObjectError(self.path(name), f"must be given: {' or '.join(choices)}")
        check_choice(self.path(name), value, choices)
        return value

    def integer(self, name: str) -> int | None:
        """A whole number; None when absent."""
        value = self.raw(name)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            raise InvalidObjectError(self.path(name), f"must be a whole number, got {_shown(value)}")
        return value

    def boolean(self, name: str) -> bool | None:
        """true or false; None when absent."""
        value = self.raw(name)
        if value is not None and not isinstance(value, bool):
            raise InvalidObjectError(self.path(name), f"must be true or false, got {_shown(value)}")
        return value

    def items(self, name: str) -> list[tuple[str, Any]]:
        """The members of a list, each with its path; none when absent."""
        value = self.raw(name)
        if value is None:
            return []
        if not isinstance(value, list | tuple):
            raise InvalidObjectError(self.path(name), f"must be a list, got {type_name(value)}")
        return [(f"{self.path(name)}[{index}]", member) for index, member in enumerate(value)]

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of text; none when absent."""
        members = self.items(name)
        for path, member in members:
            if not isinstance(member, str):
                raise InvalidObjectError(path, f"must be text, got {type_name(member)}")
        return tuple(member for _, member in members)

    def inner(self, name: str, what: str) -> Fields | None:
        """A map inside of this one; None when absent."""
        value = self.raw(name)
        return None if value is None else Fields(self.path(name), value, what)

    def finish(self, also: Collection[str] = ()) -> None:
        """Refuse the fields that were neither taken nor are in ``also``."""
        for name in self._document:
            if name not in self._taken and name not in also:
                raise InvalidObjectError(self.path(str(name) or '""'), f"is no field of {self._what}")


def check_choice(path: str, value: str, choices: Collection[str]) -> None:
    """One of ``choices``, spelled just so."""
    if value not in choices:
        raise InvalidObjectError(path, f"{value!r} must be {' or '.join(choices)}")


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, str | float) else type_name(value)
