"""The stream job on a JobManager and a TaskManager of its own, with a choice of memory, state backend and chaining."""

import pathlib
import shutil


def configuration(backend, chaining=True):
    lines = [f"state.backend.type: {backend}", "metrics.fetcher.update-interval: 500", "rest.flamegraph.enabled: false"]
    if backend == "rocksdb":
        lines.append("execution.checkpointing.incremental: true")
    if not chaining:
        lines.append("pipeline.operator-chaining.enabled: false")
    return "\n".join(lines)


class Job:
    """The job on new Flink processes."""

    def __init__(self, cluster, folder, name, options, parallelism, backend, chaining=True):
        self.cluster, self.folder = cluster, folder / name
        cluster.env.update(FLINK_DATA=str(self.folder), FLINK_HEAP=str(options.heap), FLINK_MANAGED=str(options.managed),
                           FLINK_HEARTBEAT="60000", FLINK_CONFIG=configuration(backend, chaining))
        cluster.start_flink()
        self.pid = int((self.folder / "tm1.pid").read_text())
        self.id = cluster.submit("--checkpoints", options.checkpoints, "--group", name, "--transactions", name, "--start", "earliest",
                                 parallelism=parallelism)

    def read(self):
        """Records that the sources have handed on."""
        vertices = self.cluster.rest(f"/jobs/{self.id}")["vertices"]
        return sum(v["metrics"]["write-records"] for v in vertices if v["name"].startswith("Source: flow records"))

    def until(self, records):
        """Waits for them, and gives how many they are by then."""
        def there():
            read = self.read()
            return read if read >= records else None
        return self.cluster.wait(there)

    def checkpoints(self):
        """How many, their bytes in all, and the most that one of them had to remember. A job that began again counts for nothing."""
        told = self.cluster.rest(f"/jobs/{self.id}/checkpoints")
        if told["counts"]["restored"]:
            raise SystemExit(f"FAILED: the job was restored, see {self.folder}")
        number = told["counts"]["completed"]
        average = told["summary"]["checkpointed_size"]["avg"] if number else 0
        return number, number * average, told["summary"]["state_size"]["max"] if number else 0

    def stop(self):
        self.cluster.flink("stop")
        shutil.rmtree(self.folder, ignore_errors=True)
