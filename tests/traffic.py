#!/usr/bin/env python3
"""Makes traffic that the tests can count, between addresses of the tests' own namespaces.

serve PORT              answers each TCP connection's line with 2 000 bytes, over IPv4 and IPv6
connect HOST PORT N     N short connections one after another
datagrams HOST PORT N [PORTS]
                        N UDP datagrams of 100, 101, … bytes, to so many ports in turn (1)
ports HOST PORT N       one UDP datagram to each of N ports
frames DEVICE FILE      sends the frames of a classic capture as they are
"""
import socket
import socketserver
import struct
import sys


class Answer(socketserver.StreamRequestHandler):
    def handle(self):
        self.rfile.readline()
        self.wfile.write(b"m" * 2000)


class Server(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6
    allow_reuse_address = True
    request_queue_size = 128


def serve(port):
    Server(("::", int(port)), Answer).serve_forever()


def connect(host, port, count):
    for _ in range(int(count)):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"a line\n")
            while connection.recv(65536):
                pass


def datagrams(host, port, count, ports=1):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        for index in range(int(count)):
            sender.sendto(b"d" * (100 + index % 900), (host, int(port) + index % int(ports)))


def ports(host, port, count):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for index in range(int(count)):
            sender.sendto(b"d", (host, int(port) + index))


def frames(device, file):
    with open(file, "rb") as capture, socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind((device, 0))
        capture.read(24)
        while head := capture.read(16):
            sender.send(capture.read(struct.unpack("<IIII", head)[2]))


if __name__ == "__main__":
    kinds = {"serve": serve, "connect": connect, "datagrams": datagrams, "ports": ports, "frames": frames}
    kinds[sys.argv[1]](*sys.argv[2:])
