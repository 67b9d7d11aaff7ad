package mermin.streams.nat;

import mermin.streams.conversation.Conversation;
import mermin.streams.job.Count;
import mermin.streams.job.Counters;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;

/**
 * Joins the two sides of a NAT: Flink's side of {@link Candidates}. It comes four times: keyed by what hosts say of their own
 * translations, from the side before and from the side behind; then by the end that destination NAT leaves as it is, and by
 * the one that source NAT does, for what nobody says.
 *
 * <p>Whatever has ports waits in each of them, for the same time, whether it has found its other side or not: what goes on
 * earlier than its other side would miss it at the next one.
 */
public class NatJoin extends KeyedProcessFunction<String, Conversation, Conversation> {
    private final Match.Kind kind;
    private final long wait;
    private final long tolerance;
    private transient ValueState<Candidates> state;
    private transient Counters counters;

    /** How long one waits for the other, in milliseconds of event time, and by how many nanoseconds clocks may differ. */
    public NatJoin(Match.Kind kind, long wait, long tolerance) {
        this.kind = kind;
        this.wait = wait;
        this.tolerance = tolerance;
    }

    @Override
    public void open(OpenContext context) {
        state = getRuntimeContext().getState(new ValueStateDescriptor<>("candidates", Types.POJO(Candidates.class)));
        counters = new Counters(getRuntimeContext().getMetricGroup());
    }

    @Override
    public void processElement(Conversation c, Context context, Collector<Conversation> out) throws Exception {
        if (c.event == Conversation.Event.LATE || !c.last().isOfTwoPorts()) {
            out.collect(c);
            return;
        }
        Candidates candidates = state.value();
        if (candidates == null) {
            candidates = new Candidates();
        }
        long until = Math.max(context.timestamp(), context.timerService().currentWatermark()) + wait;
        Conversation unchecked = candidates.add(c, until);
        if (unchecked != null) {
            count("nat_unchecked", until - wait + 1, context);
            out.collect(unchecked);
        }
        context.timerService().registerEventTimeTimer(until);
        state.update(candidates);
    }

    @Override
    public void onTimer(long now, OnTimerContext context, Collector<Conversation> out) throws Exception {
        Candidates candidates = state.value();
        if (candidates == null) {
            return;
        }
        Candidates.Due due = candidates.due(kind, now, tolerance);
        for (int i = 0; i < due.ambiguous(); i++) {
            count("nat_ambiguous", now, context);
        }
        due.conversations().forEach(out::collect);
        if (candidates.waiting.isEmpty()) {
            state.clear();
        } else {
            state.update(candidates);
        }
    }

    /** {@code at} is ahead of the watermark: a timer's time is, until what it does was sent on. */
    private void count(String name, long at, Context context) {
        counters.add(name);
        context.output(Count.TAG, new Count(name, 1, at));
    }
}
