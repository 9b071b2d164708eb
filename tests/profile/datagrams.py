# SPDX-License-Identifier: Apache-2.0
"""Datagrams that are answered one by one, run by the tests inside pods.

datagrams.py answer COUNT           says "bound" when it can be asked
datagrams.py ask ADDRESS COUNT SIZE
"""

import socket
import sys

PORT = 7301


def main():
    """Be the end that the command line names."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.settimeout(10)
        if sys.argv[1] == "answer":
            end.bind(("", PORT))
            print("bound", flush=True)
            for _ in range(int(sys.argv[2])):
                end.sendto(*end.recvfrom(2000))
        else:
            for _ in range(int(sys.argv[3])):
                end.sendto(bytes(int(sys.argv[4])), (sys.argv[2], PORT))
                end.recv(2000)


if __name__ == "__main__":
    main()
