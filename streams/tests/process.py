"""What a Java process costs, by its threads: processor time as the kernel counts it, and samples of JFR where threads do several things."""

import collections
import os
import pathlib
import re
import subprocess

TICK = os.sysconf("SC_CLK_TCK")
# The first 15 characters of a thread's name are all that the kernel has.
GROUPS = (
    ("reading: fetch, decode, key", r"Source: flow|Source Data Fet|kafka-coordinat"),
    ("duplicates, conversations, traffic rows", r"duplicates|conversations|traffic rows"),
    ("NAT, conversation rows and their sink", r"conntrack-nat|destination-nat|source-nat|conversation ro|conversations\["),
    ("windows and their sinks", r"GlobalWindow|count rows|LocalWindow|traffic\[|counts\["),
    ("Kafka's producers", r"kafka-producer"),
    ("checkpoints, asynchronous part", r"AsyncOperations|jobmanager-io|state-"),
    ("RocksDB's own threads", r"rocksdb"),
    ("garbage collection", r"GC Thread|G1 "),
    ("compilation", r"C1 Compiler|C2 Compiler|Sweeper"),
)
# What JFR's samples in the tasks are of, by a class on the stack; the first that fits.
CLASSES = (
    ("checkpoint, synchronous part", r"snapshotState|performCheckpoint"),
    ("sinks and their rows", r"ConversationRow\.|connector\.kafka\.sink|connectors\.kafka\.table|KafkaWriter|SinkWriter"),
    ("windows", r"TrafficRow\.|operators\.window|LocalWindow|GlobalWindow|WindowAgg|table\.runtime|StreamExecCalc"),
    ("NAT", r"NatJoin\."),
    ("conversations", r"Conversations\."),
    ("duplicates", r"Duplicates\.|DuplicatesOperator\."),
    ("reading", r"RecordReader|KafkaRecordEmitter|SourceOperator|KafkaPartitionSplitReader|FetcherManager"),
)


def cpu(pid):
    """Seconds of the process, and of each of its threads that lives by number and name."""
    def seconds(stat):
        fields = stat.rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    threads = {}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            threads[task.name, (task / "comm").read_text().strip()] = seconds((task / "stat").read_text())
        except OSError:
            continue
    return seconds(pathlib.Path(f"/proc/{pid}/stat").read_text()), threads


def parts(before, after):
    """What came between two readings, by group; threads that ended meanwhile are in the rest."""
    total = after[0] - before[0]
    by_group = collections.Counter()
    for thread, seconds in after[1].items():
        name = next((group for group, pattern in GROUPS if re.match(pattern, thread[1])), "rest")
        by_group[name] += seconds - before[1].get(thread, 0)
    by_group["rest"] += total - sum(by_group.values())
    return total, by_group


def jcmd(pid, *words):
    return subprocess.run(["jcmd", str(pid), *words], check=True, capture_output=True, text=True, timeout=60).stdout


def start_samples(pid):
    jcmd(pid, "JFR.start", "name=cost", "settings=profile")


def samples(pid, folder):
    """Shares of the samples in Java code by thread's group and class."""
    file = folder / "cost.jfr"
    jcmd(pid, "JFR.stop", "name=cost", f"filename={file}")
    text = subprocess.run(["jfr", "print", "--events", "jdk.ExecutionSample,jdk.NativeMethodSample", "--stack-depth", "64", file],
                          check=True, capture_output=True, text=True, timeout=200).stdout
    found = collections.Counter()
    for event in re.split(r"^jdk\.", text, flags=re.M)[1:]:
        thread = re.search(r'sampledThread = "([^"]*)"', event)
        # A task's name has those of all operators in it, so only the frames are looked at.
        frames = event.partition("stackTrace = [")[2]
        # In native code threads mostly wait; in RocksDB's they work.
        if not thread or event.startswith("NativeMethod") and "org.rocksdb" not in frames:
            continue
        group = next((g for g, pattern in GROUPS if re.match(pattern, thread[1])), "rest")
        kind = next((k for k, pattern in CLASSES if re.search(pattern, frames)), "rest")
        found[group, kind] += 1
    return found
