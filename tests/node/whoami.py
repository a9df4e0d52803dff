# SPDX-License-Identifier: Apache-2.0
"""Answers each UDP datagram with the address that it came from, and prints that. Run as a program: ADDRESS PORT."""

import socket
import sys


def main() -> None:
    """Serve until killed."""
    address, port = sys.argv[1], int(sys.argv[2])
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as server:
        server.bind((address, port))
        print("listening", flush=True)
        while True:
            _data, sender = server.recvfrom(2048)
            print(sender[0], flush=True)
            server.sendto(sender[0].encode(), sender)


if __name__ == "__main__":
    main()
