package mermin.streams.duplicates;

import java.util.Iterator;
import java.util.List;
import java.util.Map;
import mermin.streams.job.Count;
import mermin.streams.job.Counters;
import mermin.streams.record.FlowRecord;
import mermin.streams.record.Timing;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.ListState;
import org.apache.flink.api.common.state.ListStateDescriptor;
import org.apache.flink.api.common.state.MapState;
import org.apache.flink.api.common.state.MapStateDescriptor;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.runtime.state.FunctionInitializationContext;
import org.apache.flink.runtime.state.FunctionSnapshotContext;
import org.apache.flink.streaming.api.TimerService;
import org.apache.flink.streaming.api.checkpoint.CheckpointedFunction;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;

/**
 * Leaves out what was sent twice, and says of each record when it counts.
 *
 * <p>{@code countedAt} is never behind the watermark: a record in time counts at its end time, a late one now. So nothing
 * behind this operator is late, windows over {@code countedAt} drop nothing, and what they release for a minute that was
 * closed is a correction to be added. It is said here, once, because two operators may have seen different watermarks.
 * The watermark is part of the state: the windows behind keep theirs over a restart, and what they had closed must not be
 * taken for open here until the sources have caught up.
 *
 * <p>State: one {@link Coverage} for each flow of a Community ID, kept for {@code memory} of event time after its latest
 * record. A record that is older than that can't be checked, and is counted.
 */
public class Duplicates extends KeyedProcessFunction<String, FlowRecord, FlowRecord> implements CheckpointedFunction {
    /** Timers of flows are rounded up to this, so that a Community ID has one for many records. */
    private static final long TICK = 60_000;

    private final long memory;
    private final long ahead;
    private transient MapState<String, Coverage> flows;
    private transient ListState<Long> watermarks;
    /** The latest that this operator had, also before a restart. */
    private transient long watermark;
    private transient Counters counters;

    /** How long flows are remembered, and by how much a clock may be ahead, in milliseconds. */
    public Duplicates(long memory, long ahead) {
        this.memory = memory;
        this.ahead = ahead;
    }

    @Override
    public void open(OpenContext context) {
        flows = getRuntimeContext().getMapState(new MapStateDescriptor<>("flows", Types.STRING, Types.POJO(Coverage.class)));
        counters = new Counters(getRuntimeContext().getMetricGroup());
    }

    @Override
    public void initializeState(FunctionInitializationContext context) throws Exception {
        // Each reads those of all: whose keys it gets is not known, and the least is what all operators behind are past.
        watermarks = context.getOperatorStateStore().getUnionListState(new ListStateDescriptor<>("watermarks", Types.LONG));
        watermark = Long.MAX_VALUE;
        for (long each : watermarks.get()) {
            watermark = Math.min(watermark, each);
        }
        if (watermark == Long.MAX_VALUE) {
            watermark = Long.MIN_VALUE;
        }
    }

    @Override
    public void snapshotState(FunctionSnapshotContext context) throws Exception {
        watermarks.update(List.of(watermark));
    }

    /** A watermark has come; it may be behind what there was before a restart. */
    void passed(long mark) {
        watermark = Math.max(watermark, mark);
    }

    @Override
    public void processElement(FlowRecord r, Context context, Collector<FlowRecord> out) throws Exception {
        TimerService time = context.timerService();
        settleTime(r, time.currentProcessingTime() + ahead);
        if (r.malformed) {
            count("malformed", r, context);
            return;
        }
        Coverage flow = flows.get(r.flowId);
        boolean forgotten = flow == null && watermark != Long.MIN_VALUE && r.endMillis() < watermark - memory;
        if (flow == null) {
            flow = new Coverage();
        }
        Coverage.Verdict verdict = flow.take(r);
        if (verdict == Coverage.Verdict.DUPLICATE) {
            count("duplicate", r, context);
            return;
        }
        if (forgotten) {
            verdict = Coverage.Verdict.UNCHECKED;
        } else {
            flow.touched = Math.max(flow.touched, r.countedAt);
            flows.put(r.flowId, flow);
            time.registerEventTimeTimer(tick(flow.touched + memory));
        }
        switch (verdict) {
            case OVERLAP -> count("overlap", r, context);
            case UNCHECKED -> count("unchecked", r, context);
            default -> { }
        }
        if (r.timing != Timing.ON_TIME) {
            count(r.timing.text(), r, context);
        }
        out.collect(r);
    }

    /** When the record counts. Windows are minutes; one is closed when the watermark has passed its last millisecond. */
    private void settleTime(FlowRecord r, long latest) {
        long end = r.malformed ? r.countedAt : r.endMillis();
        long lastOfMinute = end - Math.floorMod(end, 60_000L) + 59_999;
        if (end > latest) {
            r.timing = Timing.AHEAD;
            r.countedAt = Math.max(latest, watermark + 1);
        } else if (watermark >= lastOfMinute) {
            r.timing = Timing.LATE;
            r.countedAt = watermark + 1;
        } else {
            r.timing = Timing.ON_TIME;
            r.countedAt = end;
        }
    }

    private void count(String name, FlowRecord r, Context context) {
        counters.add(name);
        context.output(Count.TAG, new Count(name, 1, Math.max(r.countedAt, watermark + 1)));
    }

    private static long tick(long millis) {
        return millis - Math.floorMod(millis, TICK) + TICK;
    }

    @Override
    public void onTimer(long now, OnTimerContext context, Collector<FlowRecord> out) throws Exception {
        for (Iterator<Map.Entry<String, Coverage>> each = flows.iterator(); each.hasNext();) {
            if (each.next().getValue().touched + memory <= now) {
                each.remove();
            }
        }
        if (flows.isEmpty()) {
            // The state in memory keeps an empty map otherwise.
            flows.clear();
        }
    }
}
