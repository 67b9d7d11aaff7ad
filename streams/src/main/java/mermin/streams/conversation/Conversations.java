package mermin.streams.conversation;

import mermin.streams.job.Count;
import mermin.streams.job.Counters;
import mermin.streams.record.FlowRecord;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;

/**
 * Joins what agents saw of one tuple: Flink's side of {@link Pending}.
 *
 * <p>All views of a conversation have the same Community ID, so they meet here. One timer per tuple is set, by what a record says
 * of its own flow; one that comes too early, because of others or of what was heard meanwhile, sets the next by all of them.
 */
public class Conversations extends KeyedProcessFunction<String, FlowRecord, Conversation> {
    private final Patience patience;
    private transient ValueState<Pending> state;
    private transient Counters counters;

    public Conversations(Patience patience) {
        this.patience = patience;
    }

    @Override
    public void open(OpenContext context) {
        state = getRuntimeContext().getState(new ValueStateDescriptor<>("pending", Types.POJO(Pending.class)));
        counters = new Counters(getRuntimeContext().getMetricGroup());
    }

    @Override
    public void processElement(FlowRecord r, Context context, Collector<Conversation> out) throws Exception {
        Pending pending = state.value();
        if (pending == null) {
            pending = new Pending();
        }
        if (pending.isFull()) {
            for (Conversation c : pending.force(context.getCurrentKey(), r.countedAt, patience)) {
                release(c, "conversation_forced", r.countedAt, context, out);
            }
        }
        setTimer(pending, pending.take(r, patience), context);
        state.update(pending);
    }

    @Override
    public void onTimer(long now, OnTimerContext context, Collector<Conversation> out) throws Exception {
        Pending pending = state.value();
        if (pending == null) {
            return;
        }
        pending.timer = Long.MAX_VALUE;
        for (Conversation c : pending.due(context.getCurrentKey(), now, patience)) {
            release(c, c.event == Conversation.Event.LATE ? "conversation_late" : null, now, context, out);
        }
        setTimer(pending, pending.nextDue(patience), context);
        if (pending.isEmpty()) {
            state.clear();
        } else {
            state.update(pending);
        }
    }

    private void release(Conversation c, String count, long now, Context context, Collector<Conversation> out) {
        if (count != null) {
            counters.add(count);
            context.output(Count.TAG, new Count(count, 1, now));
        }
        out.collect(c);
    }

    private void setTimer(Pending pending, long next, Context context) {
        if (next < pending.timer) {
            context.timerService().registerEventTimeTimer(next);
            pending.timer = next;
        }
    }
}
