#!/usr/bin/env python3
"""Makes traffic that the tests can count, between addresses of the tests' own namespaces.

serve PORT              answers each TCP connection's line with 2 000 bytes, over IPv4 and IPv6
connect HOST PORT N     N short connections one after another
datagrams HOST PORT N [PORTS]
                        N UDP datagrams of 100, 101, … bytes, to so many ports in turn (1)
ports HOST PORT N       one UDP datagram to each of N ports
flood SENDER CPU PACKETS FLOWS SEGMENTS
                        so many UDP packets, in turn to so many flows, from a port of the sender's and on that CPU; each
                        call of the kernel sends so many
frames DEVICE FILE      sends the frames of a classic capture as they are
"""
import os
import socket
import socketserver
import struct
import sys


# linux/udp.h
UDP_SEGMENT = 103


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


def flood(number, cpu, packets, flows, segments):
    number, flows, segments = int(number), int(flows), int(segments)
    os.sched_setaffinity(0, {int(cpu) % os.cpu_count()})
    rounds, rest = divmod(int(packets), flows * segments)
    assert rest == 0, "each flow gets as many"
    to = lambda index: (f"10.78.{index >> 8 & 255}.{index & 255}", 9000 + (index >> 16))
    plan = [(20 + index % 100, to(index)) for index in range(flows)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("10.77.0.1", 20000 + number))
        for _ in range(rounds):
            for size, to in plan:
                if segments > 1:
                    sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size)
                sender.sendto(bytes(size * segments), to)


def frames(device, file):
    with open(file, "rb") as capture, socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind((device, 0))
        capture.read(24)
        while head := capture.read(16):
            sender.send(capture.read(struct.unpack("<IIII", head)[2]))


if __name__ == "__main__":
    kinds = {"serve": serve, "connect": connect, "datagrams": datagrams, "ports": ports, "flood": flood, "frames": frames}
    kinds[sys.argv[1]](*sys.argv[2:])
