# SPDX-License-Identifier: Apache-2.0
"""Flows and groups to OpenFlow 1.5 and back.

The idea that the rest stands on: **a flow need not be understood to be compared.** A flow's *image* is a
pair of byte strings, :class:`~sdn.openflow.image.FlowImage`:

``key``
    table, priority and match, byte for byte as Open vSwitch prints them in a flow description;
``body``
    time-outs, flags, importance, cookie and instructions, likewise.

:func:`flow_image` makes it from a :class:`~sdn.pipeline.flow.Flow`, :func:`split_flow_descs` cuts it out of
the switch's answer, and :func:`flow_mod` turns it into a message. So installed and desired flows are two
``dict[bytes, bytes]``, their difference is a comparison of dicts, and a flow that nobody here understands
is removed by its key like any other. Groups have the same in :class:`~sdn.openflow.groupimage.GroupImage`,
with the group's number as key.

======================  ================================================================================
``image``               flow -> image (``flow_image``), image -> ``flow_mod`` message
``groupimage``          group -> image, image -> ``group_mod``, inserting and removing single buckets
``groupchanges``        installed group -> wanted group, by single buckets
``bundle``              open, close, commit, discard; wrapping messages into one bundle
``multipart``           requests and replies: flow descriptions, group descriptions and counters
``flowdesc``            flow descriptions: ``split`` (images only, fast) and ``decode`` (understood)
``groupdesc``           the same for groups
``packetio``            packet-in and packet-out
``conntrack``           removing entries of the connection tracker
``notices``             being told that flows, groups or ports have changed
``ports``               ports: descriptions, changes, their configuration
``roles``               which controller may write: role request, reply and status
``message``             header, barrier, errors, cutting a byte stream into messages
``oxm``                 match fields, both ways
``actionwire``          actions to the wire; ``actionread`` from it; ``actionlayout`` what both know
``text``                flows and groups as ``ovs-ofctl`` prints them
======================  ================================================================================

Everything here is a pure function of its arguments. What comes from a switch is untrusted: every length is
checked before it is used, and what is malformed raises :class:`CodecError` with the offset. Nothing else is
ever raised by decoding.

A reconciliation reads::

    connection.send(flow_desc_request(xid))
    installed: dict[bytes, bytes] = {}
    for reply in replies:  # each one whole multipart reply; the last has no multipart_more
        installed.update(split_flow_descs(multipart_body(reply)))
    desired = dict(map(flow_image, flows))

    gone = installed.keys() - desired.keys()
    messages = [flow_mod(FlowCommand.DELETE_STRICT, key, installed[key]) for key in gone]
    for key, body in desired.items():
        if installed.get(key) != body:
            messages.append(flow_mod(FlowCommand.ADD, key, body))

    for chunk in bundle(bundle_id, messages, first_xid):  # open, add, add, ..., close
        connection.send(chunk)
    # When the close was answered and no error came: bundle_commit(bundle_id, xid), else bundle_discard.
"""

from sdn.openflow.actionread import DecodedAction, Unknown
from sdn.openflow.bundle import (
    BundleControl,
    BundleReply,
    bundle,
    bundle_commit,
    bundle_discard,
    decode_bundle_reply,
)
from sdn.openflow.conntrack import CtTuple, Icmp, ct_flush
from sdn.openflow.errors import CodecError
from sdn.openflow.flowdesc import (
    DecodedFlow,
    canonical_key,
    decode_flow,
    decode_flow_descs,
    split_flow_descs,
)
from sdn.openflow.groupchanges import group_changes, spreads_anew
from sdn.openflow.groupdesc import DecodedGroup, decode_group, decode_group_descs, split_group_descs
from sdn.openflow.groupimage import (
    MAX_GROUP_BODY,
    OFPG_BUCKET_ALL,
    OFPG_BUCKET_FIRST,
    OFPG_BUCKET_LAST,
    OFPG_BUCKET_MAX,
    GroupCommand,
    GroupImage,
    delete_all_groups,
    group_image,
    group_mod,
    insert_bucket,
    remove_bucket,
)
from sdn.openflow.image import FlowCommand, FlowImage, flow_image, flow_mod
from sdn.openflow.message import (
    ErrorMessage,
    Framer,
    Header,
    barrier_request,
    decode_error,
    decode_header,
    wants_group,
)
from sdn.openflow.monitor import (
    OFPRR_GROUP_DELETE,
    OFPRR_HARD_TIMEOUT,
    OFPRR_IDLE_TIMEOUT,
    FlowEvent,
    FlowUpdate,
    flow_monitor_end,
    flow_monitor_request,
    forward_group_changes,
    is_flow_monitor,
    split_flow_updates,
)
from sdn.openflow.multipart import (
    GroupCounters,
    decode_group_stats,
    decode_software,
    desc_request,
    flow_desc_request,
    group_desc_request,
    group_stats_request,
    multipart_body,
    multipart_more,
)
from sdn.openflow.notices import is_notice, notice_requests, port_notice_requests, tells_change
from sdn.openflow.packetio import (
    OFPR_ACTION_SET,
    OFPR_APPLY_ACTION,
    OFPR_GROUP,
    OFPR_INVALID_TTL,
    OFPR_PACKET_OUT,
    OFPR_TABLE_MISS,
    PacketIn,
    decode_packet_in,
    packet_in_cookie,
    packet_out,
)
from sdn.openflow.ports import (
    PortConfig,
    PortDescription,
    decode_port_descs,
    decode_port_status,
    port_desc_request,
    port_mod,
)
from sdn.openflow.roles import (
    NO_GENERATION,
    Role,
    RoleReason,
    RoleReply,
    RoleStatus,
    decode_role_reply,
    decode_role_status,
    role_request,
    tells_deposed,
)
from sdn.openflow.text import format_actions, format_flow, format_group, format_match

__all__ = [
    "MAX_GROUP_BODY",
    "NO_GENERATION",
    "OFPG_BUCKET_ALL",
    "OFPG_BUCKET_FIRST",
    "OFPG_BUCKET_LAST",
    "OFPG_BUCKET_MAX",
    "OFPRR_GROUP_DELETE",
    "OFPRR_HARD_TIMEOUT",
    "OFPRR_IDLE_TIMEOUT",
    "OFPR_ACTION_SET",
    "OFPR_APPLY_ACTION",
    "OFPR_GROUP",
    "OFPR_INVALID_TTL",
    "OFPR_PACKET_OUT",
    "OFPR_TABLE_MISS",
    "BundleControl",
    "BundleReply",
    "CodecError",
    "CtTuple",
    "DecodedAction",
    "DecodedFlow",
    "DecodedGroup",
    "ErrorMessage",
    "FlowCommand",
    "FlowEvent",
    "FlowImage",
    "FlowUpdate",
    "Framer",
    "GroupCommand",
    "GroupCounters",
    "GroupImage",
    "Header",
    "Icmp",
    "PacketIn",
    "PortConfig",
    "PortDescription",
    "Role",
    "RoleReason",
    "RoleReply",
    "RoleStatus",
    "Unknown",
    "barrier_request",
    "bundle",
    "bundle_commit",
    "bundle_discard",
    "canonical_key",
    "ct_flush",
    "decode_bundle_reply",
    "decode_error",
    "decode_flow",
    "decode_flow_descs",
    "decode_group",
    "decode_group_descs",
    "decode_group_stats",
    "decode_header",
    "decode_packet_in",
    "decode_port_descs",
    "decode_port_status",
    "decode_role_reply",
    "decode_role_status",
    "decode_software",
    "delete_all_groups",
    "desc_request",
    "flow_desc_request",
    "flow_image",
    "flow_mod",
    "flow_monitor_end",
    "flow_monitor_request",
    "format_actions",
    "format_flow",
    "format_group",
    "format_match",
    "forward_group_changes",
    "group_changes",
    "group_desc_request",
    "group_image",
    "group_mod",
    "group_stats_request",
    "insert_bucket",
    "is_flow_monitor",
    "is_notice",
    "multipart_body",
    "multipart_more",
    "notice_requests",
    "packet_in_cookie",
    "packet_out",
    "port_desc_request",
    "port_mod",
    "port_notice_requests",
    "remove_bucket",
    "role_request",
    "split_flow_descs",
    "split_flow_updates",
    "split_group_descs",
    "spreads_anew",
    "tells_change",
    "tells_deposed",
    "wants_group",
]
