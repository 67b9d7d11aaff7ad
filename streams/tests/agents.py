"""What agents of several nodes would send: messages in the order in which they come, and what has to come of them.

Conversations cross one to four nodes, some with packets lost between two of them, some with their destination rewritten
on the way. Records come out of order by some seconds, some behind their window, some twice, some cut differently the
second time (an output that lags behind sends neighbours as one), some are no records. What the agent made of captures comes
from a node for each, as it is, moved in time. All is drawn from a seed.
"""

import base64
import calendar
import collections
import hashlib
import json
import random
import time

SECOND = 1_000_000_000
COUNTS = ("packets", "bytes", "frame_bytes")


def stamp(nanos):
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(nanos // SECOND)) + ".%09dZ" % (nanos % SECOND)


def community(*parts):
    """As unique as a Community ID, and of its form."""
    return "1:" + base64.b64encode(hashlib.sha1(repr(parts).encode()).digest()).decode()


class Expected:
    """What the results have to add up to."""

    def __init__(self):
        self.traffic = collections.Counter()
        self.conversations = {}
        self.counts = collections.Counter()
        self.uncertain = set()

    def add(self, record):
        """A record that counts."""
        key = (record["flow.end_time"][:16], workload(record, "source"), workload(record, "destination"))
        for side in ("flow.", "flow.reverse."):
            for what in COUNTS:
                self.traffic[key + (side + what,)] += record[f"{side}{what}.delta"]
        self.traffic[key + ("flows.ended",)] += record["flow.event"] == "end"


def workload(record, end):
    for kind in ("deployment", "pod"):
        if f"{end}.k8s.{kind}.name" in record:
            return (kind, record[f"{end}.k8s.namespace.name"], record[f"{end}.k8s.{kind}.name"])
    return ("address", None, record[f"{end}.address"])


class Fleet:
    def __init__(self, seed, nodes, start, span):
        self.random = random.Random(seed)
        self.nodes = [f"node-{n}" for n in range(nodes)]
        self.start, self.span = start, span
        self.messages = []
        self.expected = Expected()
        self.serial = 0
        self.moved = {}

    def send(self, at, node, record):
        """Puts a record on its way at a time of the agents' clock."""
        self.messages.append((at, node, record["flow.community_id"], json.dumps(record, separators=(",", ":"))))

    def conversation(self):
        """A conversation, its views, and the records of each view."""
        draw = self.random
        self.serial += 1
        port = 1024 + self.serial % 60_000
        client, server = f"10.1.{self.serial // 60_000}.{draw.randrange(1, 40)}", f"10.2.0.{draw.randrange(1, 30)}"
        path = draw.sample(self.nodes, draw.choice((1, 2, 2, 3, 4)))
        begin = self.start + draw.randrange(self.span)
        intervals = draw.choice((1, 1, 2, 3, 5))
        tuples = [(client, port, server, 443)]
        rewritten = len(path) > 1 and draw.random() < 0.1
        if rewritten:
            tuples.insert(0, (client, port, "10.96.0.9", 443))
        # Of each interval what left the client, and what of it was lost behind which node.
        lossy = draw.randrange(len(path)) if draw.random() < 0.3 else None
        sizes = [[draw.randrange(3, 60), draw.randrange(1, 60)] for _ in range(intervals)]
        lost = [draw.randrange(1, 3) if lossy is not None else 0 for _ in range(intervals)]
        late = draw.random() < 0.01
        size = draw.randrange(60, 1400)
        hops, back = [], []
        for place, node in enumerate(path):
            # A node that rewrites sees both tuples: what comes in has the one, what goes out the other.
            seen = tuples if rewritten and place == 0 else tuples[-1:]
            for t in seen:
                packets = [there - (gone if lossy is not None and place > lossy else 0) for (there, _), gone in zip(sizes, lost)]
                # One less for each router behind us, and for the router here what comes in is not yet counted down.
                ttl = 64 - place - (rewritten and t is tuples[-1])
                self.view(node, t, begin + place * 200_000, packets, [b for _, b in sizes], ttl, late, size)
                hops.append((node, tuples.index(t), sum(packets)))
                back.insert(0, (node, tuples.index(t), sum(b for _, b in sizes)))
        ids = [community(*t) for t in tuples]
        if late:
            self.expected.uncertain.update(ids)
        self.expected.conversations[ids[0]] = (hops, back, ids)

    def view(self, node, t, begin, packets, back, ttl, late, size=100):
        draw = self.random
        flow = hashlib.md5(repr((node, t, begin)).encode()).hexdigest()
        total = collections.Counter()
        records = []
        end = begin
        for n, (there, answers) in enumerate(zip(packets, back)):
            end += 20 * SECOND if len(packets) > 1 else draw.randrange(SECOND)
            last = n + 1 == len(packets)
            record = {
                "flow.id": flow, "flow.sequence": n, "flow.community_id": community(*t),
                "flow.event": "end" if last else "update",
                "flow.end_reason": "end of flow detected" if last else "active timeout",
                "flow.start_time": stamp(begin), "flow.end_time": stamp(end),
                "network.type": "ipv4", "network.transport": "tcp", "network.transport.number": 6,
                "source.address": t[0], "source.port": t[1], "source.k8s.namespace.name": "shop",
                "source.k8s.pod.name": "cart-x", "source.k8s.deployment.name": "cart-" + t[0].rsplit(".", 1)[1],
                "destination.address": t[2], "destination.port": t[3], "flow.initiator": "syn",
                "flow.ttl.max": ttl, "flow.reverse.ttl.max": 128 - ttl,
                "network.interface.name": "eth0", "network.interface.hook": "ingress",
            }
            for side, count in (("flow.", there), ("flow.reverse.", answers)):
                for what, each in zip(COUNTS, (1, size, size + 14)):
                    total[side + what] += count * each
                    record[f"{side}{what}.delta"] = count * each
                    record[f"{side}{what}.total"] = total[side + what]
            records.append((end, record))
        self.way(node, records, late)

    def way(self, node, records, late):
        """Sends a flow's records with what goes wrong on the way."""
        draw, counts = self.random, self.expected.counts
        plain = False
        for n, (end, record) in enumerate(records):
            self.expected.add(record)
            self.expected.counts["records"] += 1
            at = end + draw.randrange(15 * SECOND)
            if late and n == 0:
                at += draw.randrange(100, 200) * SECOND
            kind = draw.random()
            if kind < 0.01 and plain and not late:
                # The record before came already; the two come as one, and then this one by itself.
                both = merged(records[n - 1][1], record)
                at = max(at, records[n - 1][0] + 15 * SECOND)
                self.send(at, node, both)
                self.send(at + 30 * SECOND, node, record)
                counts["overlap"] += 1
                counts["duplicate"] += 1
                plain = False
                continue
            plain = True
            self.send(at, node, record)
            if kind > 0.98:
                self.send(at + draw.randrange(100 * SECOND), node, record)
                counts["duplicate"] += 1

    def captured(self, node, lines):
        """What the agent made of a capture."""
        records = [json.loads(line) for line in lines]
        for record in records:
            # Each flow is moved to the time of the others, so that none lasts longer or lies years ahead.
            start, end = nanos(record["flow.start_time"]), nanos(record["flow.end_time"])
            key = record["flow.id"]
            if key not in self.moved:
                longest = max(nanos(r["flow.end_time"]) for r in records if r["flow.id"] == key) - start
                room = self.span - longest
                self.moved[key] = (node, self.start + self.random.randrange(room) - start) if room > 0 else (None, 0)
            owner, moved = self.moved[key]
            # A capture that is there twice is the same flows again.
            if owner != node:
                continue
            record["flow.start_time"], record["flow.end_time"] = stamp(start + moved), stamp(end + moved)
            self.expected.add(record)
            self.expected.uncertain.add(record["flow.community_id"])
            self.expected.counts["records"] += 1
            self.expected.counts["captured"] += 1
            self.send(end + moved + self.random.randrange(15 * SECOND), node, record)

    def noise(self, n):
        """Messages that are no records, and records from the future."""
        for i in range(n):
            at = self.start + self.random.randrange(self.span)
            text = self.random.choice(("", "{", "[]", '{"flow.id":"x"}', "\x00\xff", '{"flow.event":"end"}'))
            self.messages.append((at, self.nodes[0], f"noise-{i}", text))
            self.expected.counts["malformed"] += 1
        ahead = time.time_ns() + 86_400 * SECOND
        for i in range(3):
            before = len(self.messages)
            t = ("10.3.0.1", 2000 + i, "10.3.0.2", 53)
            self.view(self.nodes[0], t, ahead, [1], [1], 64, False)
            key = community(*t)
            self.expected.uncertain.add(key)
            for m in range(before, len(self.messages)):
                _, node, key, text = self.messages[m]
                self.messages[m] = (self.start + self.span // 2, node, key, text)
                self.expected.counts["ahead"] += m == before

    def in_order(self):
        """Messages as they come."""
        self.messages.sort(key=lambda message: message[0])
        return self.messages


def nanos(text):
    return calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")) * SECOND + int(text[20:29])


def merged(earlier, later):
    both = dict(later)
    for side in ("flow.", "flow.reverse."):
        for what in COUNTS:
            both[f"{side}{what}.delta"] += earlier[f"{side}{what}.delta"]
    return both
