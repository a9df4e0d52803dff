# SPDX-License-Identifier: Apache-2.0
"""Sends bytes from one network namespace of the guest to another and says what arrived, and from whom.

    transfer.py receive tcp|udp ADDRESS PORT         prints one JSON object: "ready", then what arrived
    transfer.py send tcp|udp ADDRESS PORT BYTES      prints the digest of what it sent

The receiver ends after one connection (or datagram). Standard library only: it runs under the guest's plain
python3, in namespaces that hold nothing of this project.
"""

import hashlib
import ipaddress
import json
import os
import socket
import sys

PATIENCE = 120.0
"""Seconds that either side waits for the other."""


def receive(sock: socket.socket, transport: str) -> dict[str, object]:
    """What came over one connection, or in one datagram."""
    digest = hashlib.sha256()
    if transport == "udp":
        data, peer = sock.recvfrom(65536)
        digest.update(data)
        return {"peer": peer[0], "bytes": len(data), "sha256": digest.hexdigest()}
    connection, peer = sock.accept()
    connection.settimeout(PATIENCE)
    total = 0
    with connection:
        while data := connection.recv(65536):
            digest.update(data)
            total += len(data)
    return {"peer": peer[0], "bytes": total, "sha256": digest.hexdigest()}


def main() -> None:
    verb, transport, address, port = sys.argv[1:5]
    family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
    kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family, kind) as sock:
        sock.settimeout(PATIENCE)
        if verb == "receive":
            sock.bind((address, int(port)))
            if transport == "tcp":
                sock.listen()
            print(json.dumps({"ready": True}), flush=True)
            print(json.dumps(receive(sock, transport)), flush=True)
        else:
            data = os.urandom(int(sys.argv[5]))
            sock.connect((address, int(port)))
            sock.sendall(data)
            print(json.dumps({"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}))


if __name__ == "__main__":
    main()
