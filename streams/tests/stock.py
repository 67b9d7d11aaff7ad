"""Records of a fleet's agents by the million: each kind of record is encoded once, and what differs is patched into the bytes.

Each conversation is TCP between two pods, seen by the agents of both nodes, each with all that Kubernetes says of both ends. One in
four lasts 150 s and is told in three records, the others end after 2 s with one. In one of ten the client asks a service:
its node's agent sees that tuple and the pod's, so that there are three flows. Nothing is late, lost or sent twice. Conversations begin
evenly in event time, and records come in the order of their end times.
"""

import base64
import hashlib
import heapq
import itertools
import struct

import protobuf

SECOND = 1_000_000_000
NODES = 4
# Records of a conversation by how long after its begin they are made.
SHORT, LONG = (2,), (60, 120, 150)
# Conversations in twenty that are long, and that ask a service.
LONG_ONES, SERVICE_ONES = 5, 2
RECORDS = (1 + LONG_ONES / 20 * 2) * (2 + SERVICE_ONES / 20)
FLOW, COMMUNITY, ADDRESS, PORT = "f" * 32, "c" * 30, "10.111.111.111", 33_333
BEGIN, END = "2100-01-01T00:00:00.000000001Z", "2100-01-01T00:00:00.000000002Z"


def kubernetes(end, n):
    def uid(of):
        text = hashlib.md5(f"{of} {end} {n}".encode()).hexdigest()
        return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))

    name = f"{'cart' if end == 'source' else 'db'}-{n}"
    return {f"{end}.k8s.{key}": value for key, value in (
        ("resolution", "exact"), ("namespace.name", f"shop-{n % 20}"), ("pod.name", f"{name}-5d8f7c9b6d-x7k2p"), ("pod.uid", uid("pod")),
        ("container.name", "main"), ("node.name", f"node-{n % 97}"), ("node.uid", uid("node")), ("deployment.name", name),
        ("deployment.uid", uid("deployment")), ("replicaset.name", f"{name}-5d8f7c9b6d"), ("replicaset.uid", uid("replicaset")))}


class Template:
    """One encoded record, with the places of what differs."""

    def __init__(self, encode, workload, view, place, parts, service):
        last = place + 1 == parts
        record = {
            "flow.id": FLOW, "flow.sequence": place, "flow.community_id": COMMUNITY, "flow.event": "end" if last else "update",
            "flow.end_reason": "end of flow detected" if last else "active timeout", "flow.start_time": BEGIN, "flow.end_time": END,
            "network.type": "ipv4", "network.transport": "tcp", "network.transport.number": 6,
            "source.address": ADDRESS, "source.port": PORT,
            "destination.address": "10.96.0.9" if service and view == 0 else f"10.200.0.{workload % 250}", "destination.port": 443,
            **kubernetes("source", workload), **kubernetes("destination", workload), "flow.initiator": "syn",
            "flow.ttl.min": 64 - view, "flow.ttl.max": 64 - view, "flow.reverse.ttl.min": 62 + view, "flow.reverse.ttl.max": 62 + view,
            "network.interface.name": "eth0", "network.interface.index": 2, "network.interface.hook": "egress" if view == 0 else "ingress",
        }
        for side, packets in (("flow.", 12), ("flow.reverse.", 15)):
            for what, size in (("packets", 1), ("bytes", 700), ("frame_bytes", 714)):
                record[f"{side}{what}.delta"] = packets * size
                record[f"{side}{what}.total"] = packets * size * (place + 1)
        self.bytes = encode(record)
        self.flow, self.community, self.address = (self.find(text.encode()) for text in (FLOW, COMMUNITY, ADDRESS))
        self.port = self.find(protobuf.varint(PORT))
        nanos = 4_102_444_800 * SECOND
        self.begin, self.end = (self.find(struct.pack("<Q", nanos + n)) for n in (1, 2))

    def find(self, marker):
        if self.bytes.count(marker) != 1:
            raise ValueError(f"{marker} is not there once")
        return self.bytes.index(marker)

    def message(self, flow, community, address, port, begin, end):
        out = bytearray(self.bytes)
        out[self.flow:self.flow + 32] = flow
        out[self.community:self.community + 30] = community
        out[self.address:self.address + 14] = address
        out[self.port:self.port + 3] = port
        struct.pack_into("<Q", out, self.begin, begin)
        struct.pack_into("<Q", out, self.end, end)
        return out


class Stock:
    def __init__(self, workloads):
        self.workloads = workloads
        encode = protobuf.Encoder()
        self.templates = {
            (workload, service, parts, view, place): Template(encode, workload, view, place, parts, service)
            for workload in range(workloads) for service in (False, True) for parts in (1, 3)
            for view in range(3 if service else 2) for place in range(parts)}

    def messages(self, begin, rate):
        """Node, key and bytes of one message after the other, `rate` of them in a second of event time; it has no end."""
        for record in self.records(begin, rate):
            yield from self.views(*record)

    @staticmethod
    def records(begin, rate):
        """Begin, end, conversation's number and place in it, of what its views tell, by end."""
        every = SECOND * RECORDS / rate

        def parts(delays, place):
            for n in itertools.count():
                if is_long(n) == (delays is LONG):
                    first = begin + int(n * every)
                    yield first, first + delays[place] * SECOND, n, place

        return heapq.merge(*(parts(delays, place) for delays in (SHORT, LONG) for place in range(len(delays))),
                           key=lambda record: record[1])

    def views(self, begin, end, n, place):
        service = is_service(n)
        parts = 3 if is_long(n) else 1
        client, server = n % NODES, (n % NODES + 1 + n // NODES % (NODES - 1)) % NODES
        nodes = (client, client, server) if service else (client, server)
        address = b"10.%d.%d.%d" % (100 + n // 4_800_000 % 100, 100 + n // 48_000 % 100, 100 + n % 100)
        port = protobuf.varint(16_384 + n % 48_000)
        own = key(n, 0)
        for view, node in enumerate(nodes):
            # The tuple to the service has another Community ID than the one to the pod.
            community = key(n, 1) if service and view == 0 else own
            flow = hashlib.md5(b"%d %d" % (n, view)).hexdigest().encode()
            template = self.templates[n * 7 % self.workloads, service, parts, view, place]
            yield node, community, template.message(flow, community, address, port, begin + view * 200_000, end + view * 200_000)


def key(n, side):
    return b"1:" + base64.b64encode(hashlib.sha1(b"%d %d" % (n, side)).digest())


def is_long(n):
    return n * 7 % 20 < LONG_ONES


def is_service(n):
    return n * 13 // 20 % 20 < SERVICE_ONES
