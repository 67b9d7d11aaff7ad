package mermin.streams.job;

import java.util.HashMap;
import java.util.Map;
import org.apache.flink.metrics.Counter;
import org.apache.flink.metrics.MetricGroup;

/** The same counts as Flink's metrics: of this run of the operator, for dashboards. The rows are what is exact. */
public final class Counters {
    private final MetricGroup group;
    private final Map<String, Counter> counters = new HashMap<>();

    public Counters(MetricGroup group) {
        this.group = group.addGroup("mermin");
    }

    public void add(String name) {
        counters.computeIfAbsent(name, group::counter).inc();
    }
}
