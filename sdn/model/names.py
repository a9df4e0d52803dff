# SPDX-License-Identifier: Apache-2.0
"""How Kubernetes spells names, labels and addresses, and how a wrong one is reported.

Sources: Kubernetes documentation, "Object Names and IDs" and "Labels and Selectors"; RFC 1123.
Each ``check_*`` function raises :class:`InvalidObjectError` with the path that it is given and what would be
right.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import TypeAlias

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DNS_LABEL = re.compile(_LABEL)
_DNS_SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_LABEL_NAME = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_PORT_NAME = re.compile(r"[a-z0-9](-?[a-z0-9])*")
_PREFIX_LENGTH = re.compile(r"0|[1-9][0-9]{0,2}")

#: The transport protocols of Services and containers, as Kubernetes spells them.
PROTOCOLS = ("TCP", "UDP", "SCTP")
_LIMITED_BROADCAST = ipaddress.IPv4Address("255.255.255.255")


class InvalidObjectError(ValueError):
    """A declared object is wrong; the text starts with the object, where it is known, and the field's
    path."""

    def __init__(self, path: str, what: str, subject: str = "") -> None:
        self.path = path
        self.what = what
        self.subject = subject
        super().__init__(": ".join(part for part in (subject, path, what) if part))

    def about(self, subject: str) -> InvalidObjectError:
        """The same error, which now names the object ("Pod default/web-1")."""
        return InvalidObjectError(self.path, self.what, subject)


def check_dns_label(path: str, name: str) -> str:
    """A DNS label (RFC 1123): the form of a namespace's name."""
    if len(name) > 63 or not _DNS_LABEL.fullmatch(name):
        raise InvalidObjectError(
            path, f"{name!r} must be lower-case letters, digits and '-', at most 63, first and last no '-'"
        )
    return name


def check_dns_subdomain(path: str, name: str) -> str:
    """A DNS subdomain (RFC 1123): the form of a pod's or node's name."""
    if len(name) > 253 or not _DNS_SUBDOMAIN.fullmatch(name):
        raise InvalidObjectError(
            path,
            f"{name!r} must be lower-case letters, digits, '-' and '.', at most 253, "
            "each part between dots beginning and ending with a letter or digit",
        )
    return name


def check_service_name(path: str, name: str) -> str:
    """A DNS label of RFC 1035, which begins with a letter: the form of a Service's name."""
    if len(name) > 63 or not _SERVICE_NAME.fullmatch(name):
        raise InvalidObjectError(
            path,
            f"{name!r} must be lower-case letters, digits and '-', at most 63, "
            "beginning with a letter and not ending with '-'",
        )
    return name


def check_port_name(path: str, name: str) -> str:
    """An IANA service name (RFC 6335, section 5.1) in lower case: how a container's port is named."""
    if len(name) > 15 or not _PORT_NAME.fullmatch(name) or not re.search("[a-z]", name):
        raise InvalidObjectError(
            path,
            f"{name!r} must be lower-case letters, digits and single '-', at most 15, "
            "with at least one letter, first and last no '-'",
        )
    return name


def check_port(path: str, number: int) -> int:
    """A port number, 1 to 65535."""
    if not 1 <= number <= 65535:
        raise InvalidObjectError(path, f"{number} is no port number: 1 to 65535")
    return number


def check_address(path: str, text: str) -> IPAddress:
    """An IPv4 or IPv6 address, without prefix length or zone."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise InvalidObjectError(path, f"{text!r} is no IP address") from None
    if isinstance(address, ipaddress.IPv6Address) and (address.scope_id or address.ipv4_mapped):
        raise InvalidObjectError(
            path, f"{text!r} is an IPv6 address with a zone or that stands for an IPv4 address"
        )
    return address


def check_unicast_address(path: str, text: str) -> IPAddress:
    """An address that packets can be sent to through a network: as Kubernetes checks external IPs and
    endpoints.
    """
    address = check_address(path, text)
    for wrong, name in (
        (address.is_unspecified, "the unspecified address"),
        (address.is_loopback, "a loopback address"),
        (address.is_link_local, "a link-local address"),
        (address.is_multicast, "a multicast address"),
        (address == _LIMITED_BROADCAST, "the broadcast address"),
    ):
        if wrong:
            raise InvalidObjectError(path, f"{text!r} is {name}, which cannot be reached from elsewhere")
    return address


def check_label_key(path: str, key: str) -> str:
    """``[prefix/]name``: the prefix a DNS subdomain, the name at most 63 characters."""
    prefix, slash, name = key.rpartition("/")
    if slash and (len(prefix) > 253 or not _DNS_SUBDOMAIN.fullmatch(prefix)):
        raise InvalidObjectError(path, f"the part before '/' of {key!r} must be a DNS subdomain")
    if len(name) > 63 or not _LABEL_NAME.fullmatch(name):
        raise InvalidObjectError(
            path,
            f"{key!r} is no label key: letters, digits, '-', '_' and '.', at most 63, "
            "beginning and ending with a letter or digit, with an optional 'prefix/' before",
        )
    return key


def check_label_value(path: str, value: str) -> str:
    """Empty, or at most 63 characters of the form of a label's name."""
    if value and (len(value) > 63 or not _LABEL_NAME.fullmatch(value)):
        raise InvalidObjectError(
            path,
            f"{value!r} is no label value: letters, digits, '-', '_' and '.', at most 63, "
            "beginning and ending with a letter or digit, or empty",
        )
    return value


def check_labels(path: str, value: object) -> dict[str, str]:
    """A map of labels, each key and value in its form."""
    labels = check_text_map(path, value)
    for key, text in labels.items():
        check_label_key(f'{path}["{key}"]', key)
        check_label_value(f'{path}["{key}"]', text)
    return labels


def check_text_map(path: str, value: object) -> dict[str, str]:
    """A map from text to text."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidObjectError(path, f"must be a map, got {type_name(value)}")
    for key, text in value.items():
        if not isinstance(key, str):
            raise InvalidObjectError(path, f"keys must be text, got {key!r}")
        if not isinstance(text, str):
            raise InvalidObjectError(
                f'{path}["{key}"]', f"must be text, got {type_name(text)}: write it in quotes"
            )
    return dict(value)


def check_network(path: str, text: str) -> Network:
    """A range in CIDR notation, without bits set after its prefix."""
    try:
        return ipaddress.ip_network(text)
    except ValueError as problem:
        raise InvalidObjectError(path, f"{text!r} is no range in CIDR notation: {problem}") from None


def check_cidr(path: str, text: str) -> Network:
    """The range that holds this address and has this prefix length. Bits after the prefix may be set, as Kubernetes
    allows it in policies; they say nothing.
    """
    address_text, slash, length = text.partition("/")
    if not slash or not _PREFIX_LENGTH.fullmatch(length):
        raise InvalidObjectError(
            path, f"{text!r} is no range in CIDR notation, such as 10.0.0.0/8 or fd00::/8"
        )
    address = check_address(path, address_text)
    if int(length) > address.max_prefixlen:
        raise InvalidObjectError(
            path,
            f"{text!r}: the prefix of an IPv{address.version} range has at most {address.max_prefixlen} bits",
        )
    return ipaddress.ip_network(f"{address}/{length}", strict=False)


def type_name(value: object) -> str:
    """The type of a decoded value, as users of YAML and JSON name it."""
    if value is None:
        return "null"
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "a map",
    }
    return names.get(type(value), type(value).__name__)
