# SPDX-License-Identifier: Apache-2.0
"""One execution of the plugin: the CNI_* variables and the network configuration, parsed and validated.

Sources: CNI specification 1.1.0, sections 1 ("Network configuration format") and 2 ("Execution protocol");
the conventions document of the same release for `args.cni` and the capabilities `ips`, `mac` and `dns`.
Nothing is read here but what the runtime sent.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from agent.cni import arguments, labels
from agent.cni.arguments import Arguments
from agent.cni.errors import LATEST, CniError, Code
from sdn.pipeline.registers import GATEWAY_MAC, ROUTER_MAC

SUPPORTED: Final = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")
VERBS: Final = ("ADD", "DEL", "CHECK", "STATUS", "GC", "VERSION")
#: The version that brought a verb, where it is not the first one.
_SINCE: Final = {"CHECK": "0.4.0", "STATUS": "1.1.0", "GC": "1.1.0"}
_CONTAINER_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")
#: No runtime's ids come near it.
_LONGEST_CONTAINER_ID: Final = 255
_NETWORK_NAME: Final = _CONTAINER_ID
#: The gateway's on every node, and that by which a node reaches the pods of others.
_RESERVED_MACS: Final = (GATEWAY_MAC, ROUTER_MAC)
_MAC: Final = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")

#: Keys of the configuration that we act on, or know to mean nothing for us.
_KNOWN: Final = frozenset(
    (
        *(
            "cniVersion",
            "cniVersions",
            "name",
            "type",
            "args",
            "capabilities",
            "dns",
            "ipMasq",
            "disableCheck",
        ),
        *("disableGC", "loadOnlyInlinedPlugins", "runtimeConfig", "prevResult", "agentSocket"),
        *("cni.dev/valid-attachments", "cni.dev/attachments"),
    )
)


def _always() -> bool:
    return True


@dataclass(frozen=True)
class Call:
    """A request as it came over one of the agent's sockets. `awaited`: whether somebody still waits for the answer."""

    verb: str
    container_id: str = ""
    netns: str = ""
    ifname: str = ""
    args: str = ""
    path: str = ""
    config: bytes = b""
    awaited: Callable[[], bool] = field(default=_always, compare=False, repr=False)


@dataclass(frozen=True)
class Dns:
    """Name service settings; empty: none were told."""

    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Request:
    """A valid request.

    requested_ips  addresses that the runtime insists on, at most one a family
    requested_mac  MAC that it insists on, lower case, or empty
    valid          for GC: (container, interface) pairs that exist as far as the runtime knows
    awaited        for ADD: whether somebody still waits for the answer
    """

    verb: str
    version: str
    network: str
    container_id: str
    netns: str
    ifname: str
    arguments: Arguments
    labels: Mapping[str, str] = field(default_factory=dict)
    dns: Dns = Dns()
    requested_ips: tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...] = ()
    requested_mac: str = ""
    prev_result: Mapping[str, Any] | None = None
    valid: frozenset[tuple[str, str]] = frozenset()
    awaited: Callable[[], bool] = field(default=_always, compare=False, repr=False)


def parse(call: Call) -> Request:
    """CniError with the specification's code, naming the variable or the path of the field that is wrong."""
    if call.verb not in VERBS:
        raise CniError(
            Code.INVALID_ENVIRONMENT, f"CNI_COMMAND: {call.verb!r} is not one of {', '.join(VERBS)}"
        )
    config = _document(call.config)
    version = _version(config, call.verb)
    if call.verb == "VERSION":
        return Request(call.verb, version, "", "", "", "", Arguments())
    network = _text(config, "name")
    if not _NETWORK_NAME.fullmatch(network):
        raise CniError(Code.INVALID_CONFIGURATION, f"name: {network!r} is no network name")
    _text(config, "type")
    # DEL asks for as little as can be: what made ADD fail must not also keep its traces from being removed.
    strict = call.verb != "DEL"
    unknown = sorted(key for key in config if key not in _KNOWN and not key.startswith("cni.dev/"))
    if unknown and strict:
        raise CniError(
            Code.UNSUPPORTED_FIELD, f"{unknown[0]}: {json.dumps(config[unknown[0]])[:200]}: unknown field"
        )
    if call.verb in ("STATUS", "GC"):
        valid = _valid_attachments(config) if call.verb == "GC" else frozenset()
        return Request(call.verb, version, network, "", "", "", Arguments(), valid=valid)
    _environment(call)
    if not strict:
        return Request(call.verb, version, network, call.container_id, call.netns, call.ifname, Arguments())
    args = arguments.parse(call.args)
    cni_args = _object(_object(config, "args"), "cni", "args.cni")
    runtime = _object(config, "runtimeConfig")
    prev_result = _prev_result(config)
    if call.verb == "CHECK" and prev_result is None:
        raise CniError(Code.INVALID_CONFIGURATION, "prevResult: CHECK needs the result of ADD")
    adding = call.verb == "ADD"
    if adding:
        arguments.check_names(args, call.container_id)
    return Request(
        verb=call.verb,
        version=version,
        network=network,
        container_id=call.container_id,
        netns=call.netns,
        ifname=call.ifname,
        arguments=args,
        labels=labels.parse(cni_args.get("labels")) if adding else {},
        dns=_dns(config, runtime),
        requested_ips=_requested_ips(args, cni_args, runtime) if adding else (),
        requested_mac=_requested_mac(args, cni_args, runtime) if adding else "",
        prev_result=prev_result,
        awaited=call.awaited,
    )


def spoken_version(config: bytes) -> str:
    """The `cniVersion` to answer in, also when the rest of the configuration is wrong."""
    try:
        version = json.loads(config).get("cniVersion")
    except (ValueError, AttributeError, RecursionError):
        return LATEST
    return version if version in SUPPORTED else LATEST


# --- environment --------------------------------------------------------------------------------------------


def _environment(call: Call) -> None:
    _variable("CNI_CONTAINERID", call.container_id)
    if not _CONTAINER_ID.fullmatch(call.container_id):
        raise CniError(
            Code.INVALID_ENVIRONMENT,
            f"CNI_CONTAINERID: {call.container_id!r} must begin with a letter or digit and hold only "
            "letters, digits, '_', '.' and '-'",
        )
    if call.verb == "ADD" and len(call.container_id) > _LONGEST_CONTAINER_ID:
        raise CniError(
            Code.INVALID_ENVIRONMENT,
            f"CNI_CONTAINERID: {len(call.container_id)} characters, the limit is {_LONGEST_CONTAINER_ID}",
        )
    _variable("CNI_IFNAME", call.ifname)
    name = call.ifname
    if len(name.encode()) > 15 or name in (".", "..") or re.search(r"[/:%\s\0]", name):
        raise CniError(
            Code.INVALID_ENVIRONMENT,
            f"CNI_IFNAME: {name!r} is no interface name (1 to 15 bytes without '/', ':', '%', spaces and zeros)",
        )
    if name in ("all", "default"):
        # The kernel refuses them: its settings for every interface, and for new ones, go by these names.
        raise CniError(
            Code.INVALID_ENVIRONMENT, f"CNI_IFNAME: {name} is a name that the kernel keeps for itself"
        )
    if name == "lo":
        raise CniError(Code.INVALID_ENVIRONMENT, "CNI_IFNAME: lo is taken by the loopback interface")
    if call.verb != "DEL":
        _variable("CNI_NETNS", call.netns)


def _variable(name: str, value: str) -> None:
    if not value:
        raise CniError(Code.INVALID_ENVIRONMENT, f"{name}: missing or empty")


# --- configuration ------------------------------------------------------------------------------------------


def _document(config: bytes) -> dict[str, Any]:
    try:
        document = json.loads(config)
    except ValueError as problem:
        raise CniError(
            Code.DECODING_FAILURE, "the network configuration on standard input is not JSON", str(problem)
        ) from None
    except RecursionError:
        raise CniError(Code.DECODING_FAILURE, "the network configuration is nested too deeply") from None
    if not isinstance(document, dict):
        raise CniError(Code.DECODING_FAILURE, "the network configuration must be a JSON object")
    return document


def _version(config: dict[str, Any], verb: str) -> str:
    # Without cniVersion a configuration is of version 0.1.0 (specification 0.2.0 and later).
    version = config.get("cniVersion", "0.1.0")
    if verb == "VERSION":
        return version if version in SUPPORTED else LATEST
    if version not in SUPPORTED:
        raise CniError(
            Code.INCOMPATIBLE_VERSION,
            f"cniVersion: {version!r} is not supported",
            f"supported versions: {', '.join(SUPPORTED)}",
        )
    since = _SINCE.get(verb, "0.3.1")
    if _ordinal(version) < _ordinal(since):
        raise CniError(
            Code.INCOMPATIBLE_VERSION,
            f"cniVersion: {verb} needs {since} or newer, the configuration says {version}",
        )
    return str(version)


def _ordinal(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _text(config: dict[str, Any], key: str) -> str:
    value = config.get(key)
    if not isinstance(value, str) or not value:
        raise CniError(Code.INVALID_CONFIGURATION, f"{key}: must be a text, and is required")
    return value


def _object(config: Mapping[str, Any], key: str, path: str = "") -> dict[str, Any]:
    value = config.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise CniError(Code.INVALID_CONFIGURATION, f"{path or key}: must be an object")
    return value


def _prev_result(config: dict[str, Any]) -> dict[str, Any] | None:
    """`prevResult`, as far as we read it: three lists of objects, the addresses being addresses."""
    if config.get("prevResult") is None:
        return None
    result = _object(config, "prevResult")
    for key in ("interfaces", "ips", "routes"):
        entries = result.get(key) or []
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise CniError(Code.INVALID_CONFIGURATION, f"prevResult.{key}: must be a list of objects")
    for index, entry in enumerate(result.get("interfaces") or []):
        for key in ("name", "mac", "sandbox"):
            if not isinstance(entry.get(key, ""), str):
                raise CniError(
                    Code.INVALID_CONFIGURATION, f"prevResult.interfaces[{index}].{key}: must be a text"
                )
    for index, entry in enumerate(result.get("ips") or []):
        address = entry.get("address")
        try:
            ipaddress.ip_interface(address if isinstance(address, str) else "")
        except ValueError:
            raise CniError(
                Code.INVALID_CONFIGURATION, f"prevResult.ips[{index}].address: {address!r} is no IP address"
            ) from None
    _object(result, "dns", "prevResult.dns")
    return result


def _dns(config: dict[str, Any], runtime: dict[str, Any]) -> Dns:
    """`dns` of the configuration, overridden by the capability `dns`, whose keys some runtimes capitalize."""
    base = _object(config, "dns")
    given = {key.lower(): value for key, value in _object(runtime, "dns", "runtimeConfig.dns").items()}
    texts = {
        "nameservers": given.get("servers", base.get("nameservers")),
        "search": given.get("searches", base.get("search")),
        "options": given.get("options", base.get("options")),
    }
    lists = {}
    for key, value in texts.items():
        if value is None:
            value = []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise CniError(Code.INVALID_CONFIGURATION, f"dns.{key}: must be a list of texts")
        lists[key] = tuple(value)
    domain = base.get("domain", "")
    if not isinstance(domain, str):
        raise CniError(Code.INVALID_CONFIGURATION, "dns.domain: must be a text")
    return Dns(lists["nameservers"], domain, lists["search"], lists["options"])


def _requested_ips(
    args: Arguments, cni_args: dict[str, Any], runtime: dict[str, Any]
) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...]:
    if runtime.get("ips"):
        path, texts = "runtimeConfig.ips", runtime["ips"]
    elif cni_args.get("ips"):
        path, texts = "args.cni.ips", cni_args["ips"]
    elif args.ip:
        path, texts = "CNI_ARGS IP", args.ip.split(",")
    else:
        return ()
    code = Code.INVALID_ENVIRONMENT if path.startswith("CNI_ARGS") else Code.INVALID_CONFIGURATION
    if not isinstance(texts, list):
        raise CniError(code, f"{path}: must be a list of addresses")
    addresses = []
    for text in texts:
        try:
            # A zone would be left out without a word.
            plain = text if isinstance(text, str) and "%" not in text else ""
            addresses.append(ipaddress.ip_interface(plain).ip)
        except ValueError:
            raise CniError(code, f"{path}: {text!r} is no IP address") from None
    if len({address.version for address in addresses}) != len(addresses):
        raise CniError(code, f"{path}: at most one address a family")
    return tuple(addresses)


def _requested_mac(args: Arguments, cni_args: dict[str, Any], runtime: dict[str, Any]) -> str:
    if runtime.get("mac"):
        path, mac = "runtimeConfig.mac", runtime["mac"]
    elif cni_args.get("mac"):
        path, mac = "args.cni.mac", cni_args["mac"]
    elif args.mac:
        path, mac = "CNI_ARGS MAC", args.mac
    else:
        return ""
    code = Code.INVALID_ENVIRONMENT if path.startswith("CNI_ARGS") else Code.INVALID_CONFIGURATION
    if not isinstance(mac, str) or not _MAC.fullmatch(mac):
        raise CniError(code, f"{path}: {mac!r} is no MAC address")
    if int(mac[:2], 16) & 1 or int(mac.replace(":", ""), 16) == 0:
        raise CniError(code, f"{path}: {mac} is no unicast address")
    if int(mac.replace(":", ""), 16) in _RESERVED_MACS:
        raise CniError(code, f"{path}: {mac} is the gateway's, on every node")
    return mac.lower()


def _valid_attachments(config: dict[str, Any]) -> frozenset[tuple[str, str]]:
    path = "cni.dev/valid-attachments"
    if path not in config and "cni.dev/attachments" in config:
        path = "cni.dev/attachments"
    if path not in config:
        # Taken as "none is valid", a forgotten key would take every pod's network away.
        raise CniError(Code.INVALID_CONFIGURATION, f"{path}: GC needs the list of valid attachments")
    items = config[path]
    if items is None:
        items = []
    if not isinstance(items, list):
        raise CniError(Code.INVALID_CONFIGURATION, f"{path}: must be a list")
    valid = set()
    for index, item in enumerate(items):
        container = item.get("containerID") if isinstance(item, dict) else None
        ifname = item.get("ifname") if isinstance(item, dict) else None
        if not isinstance(container, str) or not isinstance(ifname, str):
            raise CniError(
                Code.INVALID_CONFIGURATION, f"{path}[{index}]: needs the texts containerID and ifname"
            )
        valid.add((container, ifname))
    return frozenset(valid)
