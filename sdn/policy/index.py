# SPDX-License-Identifier: Apache-2.0
"""The index of labels: which groups take which pods, kept while labels of pods and namespaces change.

Selectors of groups live in a *scope*: one namespace, or those namespaces that a selector takes. A new class of labels
is asked of the scopes of its namespace alone, and there of the groups filed under a label that it has; a new group
looks at the classes that have a label which it needs. Groups and scopes are there while somebody needs them,
namespaces while they are declared, have pods, or have groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from sdn.policy.addresses import AddressBook
from sdn.policy.compiled import GroupKey
from sdn.policy.groups import PodGroup
from sdn.policy.journal import Journal
from sdn.policy.matching import NAMESPACE_NAME
from sdn.policy.members import LabelClass
from sdn.policy.named import look_again
from sdn.policy.selectors import EVERYTHING, Catalog, Filing, Selector, fits

#: From how many classes on, or namespaces, classes are kept by label.
_MANY: Final = 32
#: Classes that a namespace may have, where they are not counted.
_CLASSES_EACH: Final = 8


class Namespace:
    """A namespace: its labels, the scopes that it is in, the classes of its pods."""

    __slots__ = ("catalog", "classes", "declared", "labels", "name", "own", "scopes")

    def __init__(self, name: str) -> None:
        self.name = name
        self.labels: Mapping[str, str] = {NAMESPACE_NAME: name}
        self.declared = False
        self.classes: dict[frozenset[tuple[str, str]], LabelClass] = {}
        self.catalog: Catalog[LabelClass] | None = None
        #: The scope that is this namespace alone, and those that selectors make.
        self.own: Scope | None = None
        self.scopes: set[Scope] = set()


class Scope:
    """Where groups look for pods: ``where`` is a namespace's name, or a selector of namespaces."""

    __slots__ = ("filing", "groups", "namespaces", "where")

    def __init__(self, where: str | Selector, namespaces: Iterable[Namespace]) -> None:
        self.where = where
        self.namespaces = set(namespaces)
        self.groups: dict[Selector, PodGroup] = {}
        self.filing: Filing[PodGroup] = Filing()


class LabelIndex:
    """See the module."""

    def __init__(self, book: AddressBook, journal: Journal) -> None:
        self._book = book
        self._journal = journal
        self.namespaces: dict[str, Namespace] = {}
        self._scopes: dict[Selector, Scope] = {}
        self._scope_filing: Filing[Scope] = Filing()
        self._by_label: Catalog[Namespace] = Catalog()
        #: All classes by label: made when a group first needs it.
        self._catalog: Catalog[LabelClass] | None = None
        #: Grows whenever the rules of some class may have changed.
        self.version = 0

    # Namespaces.

    def declare(self, name: str, labels: Mapping[str, str] | None) -> None:
        """A namespace's labels are these; None: it is not declared any more."""
        if labels is None and name not in self.namespaces:
            return
        namespace = self._namespace(name)
        namespace.declared = labels is not None
        wanted = {**(labels or {}), NAMESPACE_NAME: name}
        if wanted != namespace.labels:
            self._by_label.remove(_declared(namespace.labels), namespace)
            namespace.labels = wanted
            self._by_label.add(_declared(wanted), namespace)
            self._rescope(namespace)
        self._drop_unused(namespace)

    def _namespace(self, name: str) -> Namespace:
        namespace = self.namespaces.get(name)
        if namespace is None:
            namespace = self.namespaces[name] = Namespace(name)
            namespace.scopes = set(self._scope_filing.fitting(namespace.labels))
            for scope in namespace.scopes:
                scope.namespaces.add(namespace)
        return namespace

    def _rescope(self, namespace: Namespace) -> None:
        """After the labels of a namespace have changed."""
        scopes = set(self._scope_filing.fitting(namespace.labels))
        left, entered = namespace.scopes - scopes, scopes - namespace.scopes
        if not left and not entered:
            return
        self.version += 1
        namespace.scopes = scopes
        for scope in left:
            scope.namespaces.discard(namespace)
        for scope in entered:
            scope.namespaces.add(namespace)
        for kin in namespace.classes.values():
            for group in [group for group in kin.groups if group.scope in left]:
                self._leave(group, kin)
            for scope in entered:
                for group in list(scope.filing.fitting(kin.labels)):
                    self._join(group, kin)

    def _drop_unused(self, namespace: Namespace) -> None:
        if namespace.declared or namespace.classes or namespace.own is not None:
            return
        del self.namespaces[namespace.name]
        self._by_label.remove(_declared(namespace.labels), namespace)
        for scope in namespace.scopes:
            scope.namespaces.discard(namespace)

    # Classes of pods.

    def class_of(self, namespace_name: str, labels: Mapping[str, str]) -> LabelClass:
        """The pods of a namespace that have these labels; it is made when there are none yet."""
        namespace = self._namespace(namespace_name)
        key = frozenset(labels.items())
        kin = namespace.classes.get(key)
        if kin is None:
            kin = namespace.classes[key] = LabelClass(namespace, labels)
            if namespace.catalog is not None:
                namespace.catalog.add(labels, kin)
            if self._catalog is not None:
                self._catalog.add(labels, kin)
            if namespace.own is not None:
                kin.groups.update(namespace.own.filing.fitting(labels))
            for scope in namespace.scopes:
                kin.groups.update(scope.filing.fitting(labels))
            for group in kin.groups:
                group.classes.add(kin)
        return kin

    def drop_class(self, kin: LabelClass) -> None:
        """When its last pod is gone."""
        namespace = kin.namespace
        del namespace.classes[frozenset(kin.labels.items())]
        if namespace.catalog is not None:
            namespace.catalog.remove(kin.labels, kin)
        if self._catalog is not None:
            self._catalog.remove(kin.labels, kin)
        for group in kin.groups:
            group.classes.discard(kin)
        self._drop_unused(namespace)

    # Groups.

    def group(self, key: GroupKey) -> PodGroup:
        """The group of pods with this key; it is made when nobody needed it before."""
        where, selector = key
        scope = self._scope(where)
        group = scope.groups.get(selector)
        if group is None:
            group = scope.groups[selector] = PodGroup(scope, selector, self._book.pods)
            scope.filing.add(selector, group)
            for kin in self._candidates(scope, selector):
                if kin.namespace in scope.namespaces and fits(selector, kin.labels):
                    group.classes.add(kin)
                    kin.groups.add(group)
        return group

    def _scope(self, where: str | Selector) -> Scope:
        if isinstance(where, str):
            namespace = self._namespace(where)
            if namespace.own is None:
                namespace.own = Scope(where, (namespace,))
            return namespace.own
        scope = self._scopes.get(where)
        if scope is None:
            scope = self._scopes[where] = Scope(where, self._taken(where))
            self._scope_filing.add(where, scope)
            for namespace in scope.namespaces:
                namespace.scopes.add(scope)
        return scope

    def _taken(self, selector: Selector) -> list[Namespace]:
        """The namespaces that a selector takes."""
        # Every namespace has the label with its name, so that label is looked up where namespaces are.
        for key, operator, values in selector:
            if key == NAMESPACE_NAME and operator == "in":
                near: Iterable[Namespace] = [
                    self.namespaces[name] for name in values if name in self.namespaces
                ]
                break
        else:
            rest = tuple(need for need in selector if need.key != NAMESPACE_NAME)
            labelled = self._by_label.near(rest)
            near = self.namespaces.values() if labelled is None else labelled
        return [namespace for namespace in near if fits(selector, namespace.labels)]

    def _candidates(self, scope: Scope, selector: Selector) -> Iterable[LabelClass]:
        """Classes that may fit a new group."""
        if isinstance(scope.where, str):
            (namespace,) = scope.namespaces
            if len(namespace.classes) > _MANY and namespace.catalog is None:
                namespace.catalog = _catalog(namespace.classes.values())
            near = None if namespace.catalog is None else namespace.catalog.near(selector)
            return namespace.classes.values() if near is None else near
        if selector != EVERYTHING and len(scope.namespaces) > _MANY:
            if self._catalog is None:
                everything = (each.classes.values() for each in self.namespaces.values())
                self._catalog = _catalog(kin for classes in everything for kin in classes)
            near = self._catalog.near(selector)
            if near is not None and len(near) < _CLASSES_EACH * len(scope.namespaces):
                return near
        return [kin for namespace in scope.namespaces for kin in namespace.classes.values()]

    def release(self, group: PodGroup) -> None:
        """When somebody may have been the last to need a group."""
        scope = group.scope
        if group.used or scope.groups.get(group.selector) is not group:
            return
        del scope.groups[group.selector]
        scope.filing.remove(group.selector, group)
        for kin in group.classes:
            kin.groups.discard(group)
        if scope.groups:
            return
        if isinstance(scope.where, str):
            namespace = self.namespaces[scope.where]
            namespace.own = None
            self._drop_unused(namespace)
        else:
            del self._scopes[scope.where]
            self._scope_filing.remove(scope.where, scope)
            for namespace in scope.namespaces:
                namespace.scopes.discard(scope)

    # Pods that come and go by labels of their namespace.

    def _join(self, group: PodGroup, kin: LabelClass) -> None:
        codes = self._note(group, kin, was=False)
        group.classes.add(kin)
        kin.groups.add(group)
        if group.subject_of:
            group.span |= kin.mask
        look_again(group.named, codes)

    def _leave(self, group: PodGroup, kin: LabelClass) -> None:
        codes = self._note(group, kin, was=True)
        group.classes.discard(kin)
        kin.groups.discard(group)
        if group.subject_of:
            lost = kin.mask
            for other in group.classes:
                lost &= ~other.mask
                if not lost:
                    break
            group.span &= ~lost
        look_again(group.named, codes)

    def _note(self, group: PodGroup, kin: LabelClass, was: bool) -> set[int]:
        """Before a class joins or leaves a group; gives the addresses of its pods."""
        journal = self._journal
        codes = {code for pod in kin.pods for code in pod.codes}
        if journal.on:
            if group.policies:
                journal.note_class(kin)
            if group.peer_of:
                for code in codes:
                    journal.note_source(group, code)
            if group.subject_of:
                journal.note_span(group)
                for pod in kin.pods:
                    journal.note_subject(group, pod, was)
        return codes


def _declared(labels: Mapping[str, str]) -> dict[str, str]:
    """Labels without the one that every namespace has."""
    return {key: value for key, value in labels.items() if key != NAMESPACE_NAME}


def _catalog(classes: Iterable[LabelClass]) -> Catalog[LabelClass]:
    made: Catalog[LabelClass] = Catalog()
    for kin in classes:
        made.add(kin.labels, kin)
    return made
