# SPDX-License-Identifier: Apache-2.0
"""The state folder of a lab: what is written down before it is made, so that `down` can undo what was cut off."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import msgspec

from sdn.lab.errors import LabError
from sdn.lab.processes import Identity
from sdn.lab.spec import LabSpec, check_name

ROOT = Path("/run/sdn-lab")


class LabRecord(msgspec.Struct, frozen=True, kw_only=True):
    """lab.json."""

    spec: LabSpec
    #: Random; stands in the environment of every process of this lab, so that none is overlooked.
    id: str
    #: The process that brings the lab up, or did.
    starter: Identity
    #: `up` went through to its end.
    complete: bool
    #: When `up` began, RFC 3339.
    created: str


class PodRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One file in pods/. Written before the pod's namespace is made, removed after that is gone."""

    name: str
    namespace: str
    uid: str
    node: str
    netns: str
    container_id: str
    labels: dict[str, str] = {}
    #: Empty until the plugin has answered.
    interface: str = ""
    mac: str = ""
    #: Without prefix length.
    addresses: tuple[str, ...] = ()
    mtu: int = 0

    @property
    def full_name(self) -> str:
        return f"{self.namespace}/{self.name}"


class Folder:
    """Where everything of the lab with this name is kept."""

    def __init__(self, name: str) -> None:
        check_name(name)
        self.name = name
        self.path = ROOT / name
        self.pods_path = self.path / "pods"
        self.logs = self.path / "logs"

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def exists(self) -> bool:
        return self.path.exists()

    def create(self, record: LabRecord) -> None:
        """Make the folder with its lab.json in one step: there is never a folder that does not say what it is for.

        FileExistsError if the name is taken.
        """
        ROOT.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = ROOT / f".{self.name}.{record.id}"
        try:
            draft.mkdir(mode=0o700)
            for folder in ("pods", "logs"):
                (draft / folder).mkdir(mode=0o700)
            (draft / "lab.json").write_bytes(_pretty(record))
            try:
                # rename(2) replaces an empty folder only, and a lab's folder never is empty.
                draft.rename(self.path)
            except OSError as problem:
                raise FileExistsError(str(self.path)) from problem
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def remove(self) -> None:
        """Remove the folder; lab.json goes last, so that a cut-off removal can be repeated."""
        with contextlib.suppress(FileNotFoundError):
            for entry in self.path.iterdir():
                if entry.name == "lab.json":
                    continue
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink(missing_ok=True)
            (self.path / "lab.json").unlink(missing_ok=True)
            self.path.rmdir()
        for draft in ROOT.glob(f".{self.name}.*"):
            shutil.rmtree(draft, ignore_errors=True)
        with contextlib.suppress(OSError):  # other labs are still there, or nothing ever was
            ROOT.rmdir()

    def read(self) -> LabRecord:
        path = self.path / "lab.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=LabRecord)
        except FileNotFoundError:
            raise LabError(
                f"there is no lab {self.name}; `sdnctl lab up --name {self.name}` makes one"
            ) from None
        except msgspec.DecodeError as problem:
            raise LabError(f"{path} is not readable: {problem}") from None

    def write(self, record: LabRecord) -> None:
        replace(self.path / "lab.json", _pretty(record))

    def pods(self) -> list[PodRecord]:
        """All pods that are written down, in the order of namespace and name."""
        found = []
        for path in self.pods_path.glob("*.json"):
            with contextlib.suppress(FileNotFoundError):  # deleted since the listing
                found.append(msgspec.json.decode(path.read_bytes(), type=PodRecord))
        return sorted(found, key=lambda pod: (pod.namespace, _natural(pod.name)))

    def add_pod(self, pod: PodRecord) -> None:
        """Write down a new pod; LabError if there is one with its name."""
        path = self._pod_path(pod.namespace, pod.name)
        draft = path.with_suffix(f".{pod.container_id[:12]}.new")
        draft.write_bytes(_pretty(pod))
        try:
            os.link(draft, path)
        except FileExistsError:
            raise LabError(f"pod {pod.full_name} exists already in lab {self.name}") from None
        finally:
            draft.unlink()

    def write_pod(self, pod: PodRecord) -> None:
        replace(self._pod_path(pod.namespace, pod.name), _pretty(pod))

    def remove_pod(self, pod: PodRecord) -> None:
        self._pod_path(pod.namespace, pod.name).unlink(missing_ok=True)

    def _pod_path(self, namespace: str, name: str) -> Path:
        # A namespace's name has no dot (RFC 1123 label), so this is unambiguous.
        return self.pods_path / f"{namespace}.{name}.json"


def names() -> list[str]:
    """Labs that have a state folder, complete or not."""
    try:
        return sorted(path.name for path in ROOT.iterdir() if (path / "lab.json").exists())
    except (FileNotFoundError, PermissionError):
        return []


def replace(path: Path, content: bytes) -> None:
    """Write a file so that readers see the old content or the new one, never a part."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    draft.write_bytes(content)
    draft.replace(path)


def _pretty(value: LabRecord | PodRecord) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def _natural(text: str) -> list[tuple[int, str]]:
    """Sorts web-2 before web-10."""
    parts: list[tuple[int, str]] = []
    number = ""
    for character in text:
        if character.isdecimal():
            number += character
            continue
        if number:
            parts.append((int(number), ""))
            number = ""
        parts.append((-1, character))
    if number:
        parts.append((int(number), ""))
    return parts
