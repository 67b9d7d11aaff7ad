"""Bytes of state by operator, where it is known how much each of them remembers.

The job runs unchained, so that a checkpoint tells the bytes of each operator. Records come up to a moment of event time; when all
was read and the watermark stands, what waits and what is remembered follows from the stock, and the checkpoint is divided by it.
That is done twice: before the first conversation is released, and when as much is forgotten as comes.
"""

import collections
import itertools
import json

import stock
from cluster import read, say
from job import Job
from producers import Producers

SECOND = stock.SECOND
# Seconds of the job's defaults: --out-of-order, --wait, --duplicates-within, --nat-wait.
OUT_OF_ORDER, WAIT, MEMORY, NAT_WAIT = 60, 90, 900, 30
STAGES = (140, 1_700)
RATE = 150


class Sent:
    """What the job was given, in the stock's order, and what it has to remember of it."""

    def __init__(self, workloads, begin):
        self.stock, self.begin = stock.Stock(workloads), begin
        self.records = self.stock.records(begin, RATE)
        self.ahead = None
        # End of the latest record and whether it was the last, of each conversation.
        self.conversations = {}
        self.minutes = collections.defaultdict(set)
        self.watermark = None
        self.count = self.bytes = 0

    def until(self, seconds):
        """Messages whose records end before then."""
        limit = self.begin + seconds * SECOND
        for record in itertools.chain([self.ahead] if self.ahead else [], self.records):
            begin, end, n, place = record
            if end >= limit:
                self.ahead = record
                return
            self.conversations[n] = (end, place == len(stock.LONG if stock.is_long(n) else stock.SHORT) - 1)
            self.minutes[end // (60 * SECOND)].add(n * 7 % self.stock.workloads)
            self.watermark = end - OUT_OF_ORDER * SECOND
            for message in self.stock.views(*record):
                self.count += 1
                self.bytes += len(message[2])
                yield message

    def remembered(self):
        """What there is in each operator, at the watermark."""
        known = collections.Counter()
        for n, (end, ended) in self.conversations.items():
            flows, tuples = (3, 2) if stock.is_service(n) else (2, 1)
            age = (self.watermark - end) / SECOND
            # Timers of flows are at full minutes.
            known["duplicates: flows"] += flows * ((end // SECOND + MEMORY) // 60 * 60 + 60 > self.watermark // SECOND)
            waits = not ended or age < WAIT
            known["conversations: flows that wait"] += flows * waits
            known["conversations: tuples that wait"] += tuples * waits
            known["conversations: flows released"] += flows * (not waits and age < WAIT + MEMORY)
            known["conversations: tuples released"] += tuples * (not waits and age < WAIT + MEMORY)
            for stage in range(4):
                sides = tuples if stage < 3 else 1
                known[f"NAT {stage + 1}: conversations"] += sides * (ended and 0 <= age - WAIT - stage * NAT_WAIT < NAT_WAIT)
        known["windows: open rows"] = sum(len(rows) for minute, rows in self.minutes.items() if (minute + 1) * 60 * SECOND > self.watermark)
        return known


def sizes(job):
    """Bytes of the latest checkpoint by operator."""
    rest, jobs = job.cluster.rest, f"/jobs/{job.id}"
    latest = rest(f"{jobs}/checkpoints")["latest"]["completed"]["id"]
    names = {v["id"]: v["name"] for v in rest(f"{jobs}")["vertices"]}
    tasks = rest(f"{jobs}/checkpoints/details/{latest}")["tasks"]
    return {names[vertex]: task["state_size"] for vertex, task in tasks.items()}


def topics(cluster, folder):
    """Rows and bytes of the results."""
    for topic in ("mermin.traffic", "mermin.conversations", "mermin.streams.counts"):
        texts = [json.dumps(row, separators=(",", ":")) for row in read(cluster, topic)]
        rows, value = len(texts), sum(map(len, texts))
        disk = sum(f.stat().st_size for f in (folder / "kafka/logs").glob(f"{topic}-[0-9]*/*.log"))
        say(f"{topic}: {rows} rows, {value / max(1, rows):.0f} bytes of JSON and {disk / max(1, rows):.0f} on disk each")


def measure(cluster, folder, options, begin, backend):
    sent = Sent(options.workloads, begin)
    job = Job(cluster, folder, f"state-{backend}", options, 1, backend, chaining=False)
    try:
        for stage in STAGES:
            # A producer holds its last message back until it ends.
            producers = Producers(cluster)
            producers.send(sent.until(stage))
            producers.end()
            cluster.wait(lambda: job.read() >= sent.count or None)
            # The watermark of the last record comes behind it, and timers behind that.
            done = cluster.checkpoints(job.id) + 3
            cluster.wait(lambda: cluster.checkpoints(job.id) >= done or None)
            say(f"{backend}, {stage} s of event time, {sent.count} records:")
            for name, size in sizes(job).items():
                if size > 2_000:
                    print(f"  {size:12}  {name}", flush=True)
            for name, n in sorted(sent.remembered().items()):
                print(f"  {n:12}  {name}")
        cluster.rest(f"/jobs/{job.id}/stop", {"drain": True, "targetDirectory": f"file://{job.folder}/savepoints"})
        cluster.ended(job.id)
        topics(cluster, folder)
        say(f"{len(sent.conversations)} conversations, {sent.count} records of {sent.bytes / sent.count:.0f} bytes")
    finally:
        job.stop()
