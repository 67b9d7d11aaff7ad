"""A broker, a JobManager and TaskManagers for a test, and the job on them: all on 127.0.0.1, all ended with it."""

import json
import os
import pathlib
import socket
import subprocess
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
SERVERS = "~/.cache/mermin/streams"
TOPICS = {"mermin.flows": 4, "mermin.traffic": 2, "mermin.conversations": 2, "mermin.streams.counts": 1}
# What a test may take, in seconds from when servers and jar are there.
LIMIT = 230
began = time.monotonic()


def left():
    seconds = LIMIT - (time.monotonic() - began)
    if seconds < 1:
        raise SystemExit("FAILED: it takes too long")
    return seconds


def say(text):
    print(f"[{time.monotonic() - began:5.1f} s] {text}", flush=True)


def free_port(count):
    """The first of `count` neighbouring ports that nobody has; each process begins to look elsewhere."""
    begin = os.getpid() * 97 % 10_000
    for port in (21_000 + (begin + step) % 10_000 for step in range(0, 10_000, 97)):
        sockets = []
        try:
            for n in range(count):
                s = socket.socket()
                sockets.append(s)
                s.bind(("127.0.0.1", port + n))
            return port
        except OSError:
            continue
        finally:
            for s in sockets:
                s.close()
    raise SystemExit("no free ports")


class Cluster:
    def __init__(self, servers, folder):
        self.servers = servers
        self.kafka_port, self.flink_port = free_port(2), None
        self.env = dict(os.environ, KAFKA_DATA=str(folder / "kafka"), KAFKA_PORT=str(self.kafka_port),
                        FLINK_DATA=str(folder / "flink"))

    def kafka(self, *words):
        subprocess.run([self.servers / "kafka/kafka", *words], env=self.env, check=True, timeout=left())

    def flink(self, *words):
        subprocess.run([self.servers / "flink/flink", *words], env=self.env, check=True, timeout=left())

    @staticmethod
    def install(servers):
        """Puts servers into the cache, and builds the jar, where they are not there."""
        for server in ("kafka", "flink"):
            subprocess.run([HERE / f"servers/{server}.sh", servers / server], check=True)
        if not (HERE.parent / "target/mermin-streams.jar").exists():
            subprocess.run(["mvn", "-B", "-q", "-ntp", "-f", HERE.parent / "pom.xml", "package", "-DskipTests"], check=True)
        global began
        began = time.monotonic()

    def start(self):
        self.start_kafka()
        self.start_flink()

    def start_kafka(self):
        self.kafka("start")
        for topic, partitions in TOPICS.items():
            self.kafka("topic", topic, str(partitions))

    def start_flink(self):
        self.flink_port = free_port(44)
        self.env["FLINK_PORT"] = str(self.flink_port)
        self.flink("start")

    def stop(self):
        for server in ("flink", "kafka"):
            subprocess.run([self.servers / server / server, "stop"], env=self.env, check=False, timeout=20)

    def submit(self, *options, parallelism=2):
        """Hands the job over, and gives its id."""
        words = [HERE.parent / "run", "--cluster", f"http://127.0.0.1:{self.flink_port}", "--parallelism", str(parallelism),
                 "--", "--brokers", self.brokers, *options]
        return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, timeout=left()).stdout.strip()

    def ended(self, job):
        """Waits for it; what it failed of stands in the servers' logs."""
        def state():
            now = self.rest(f"/jobs/{job}")["state"]
            if now in ("FAILED", "CANCELED"):
                raise SystemExit(f"FAILED: the job is {now}")
            return now if now == "FINISHED" else None
        self.wait(state)

    def lag(self):
        """Messages that no checkpoint has."""
        words = [self.servers / "kafka/kafka", "lag", "mermin-streams", "mermin.flows"]
        return subprocess.run(words, env=self.env, check=True, capture_output=True, text=True, timeout=left()).stdout.strip()

    @property
    def brokers(self):
        return f"127.0.0.1:{self.kafka_port}"

    def rest(self, path, body=None, method=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.flink_port}{path}", data,
                                         {"content-type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=min(30, left())) as answer:
            return json.load(answer)

    @staticmethod
    def wait(test):
        """Until it gives something; a server that does not answer yet gives nothing."""
        while True:
            left()
            try:
                if (value := test()) is not None:
                    return value
            except OSError:
                pass
            time.sleep(0.3)

    def checkpoints(self, job):
        return self.rest(f"/jobs/{job}/checkpoints")["counts"]["completed"]


def read(cluster, topic):
    """All rows of a topic that were committed."""
    out = subprocess.run(["kcat", "-b", cluster.brokers, "-t", topic, "-C", "-e", "-q", "-X", "isolation.level=read_committed"],
                         check=True, capture_output=True, timeout=left()).stdout
    return [json.loads(line) for line in out.splitlines()]
