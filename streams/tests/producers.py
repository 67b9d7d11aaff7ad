"""Sends a stock of records to the broker, each by its node's producer."""

import subprocess
import time

import stock
from cluster import left

KEY_END, MESSAGE_END = b"\x01:k:\x02", b"\x01:m:\x02"
# Sent in a second: slow enough that no node's producer gets ahead of another's by more than --out-of-order.
PACE = 40_000


class Producers:
    """One for each node, since headers are a producer's."""

    def __init__(self, cluster):
        self.nodes = [subprocess.Popen(
            ["kcat", "-b", cluster.brokers, "-t", "mermin.flows", "-P", "-K", KEY_END.decode(), "-D", MESSAGE_END.decode(),
             "-z", "lz4", "-H", f"node=node-{n}", "-H", f"agent.id=agent-of-node-{n}", "-H", "encoding=protobuf",
             "-X", "topic.partitioner=murmur2_random", "-X", "linger.ms=20", "-X", "enable.idempotence=true"],
            stdin=subprocess.PIPE) for n in range(stock.NODES)]

    def send(self, messages):
        begin, count, size = time.monotonic(), 0, 0
        for node, key, message in messages:
            self.nodes[node].stdin.write(key + KEY_END + message + MESSAGE_END)
            count += 1
            size += len(message)
            if count % 2_000 == 0:
                for producer in self.nodes:
                    producer.stdin.flush()
                time.sleep(max(0, begin + count / PACE - time.monotonic()))
        for producer in self.nodes:
            producer.stdin.flush()
        return count, size

    def end(self):
        for producer in self.nodes:
            producer.stdin.close()
        for producer in self.nodes:
            if producer.wait(timeout=left()) != 0:
                raise SystemExit("FAILED: a producer failed")
