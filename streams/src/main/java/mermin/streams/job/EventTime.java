package mermin.streams.job;

import java.time.Duration;
import mermin.streams.record.FlowRecord;
import org.apache.flink.api.common.eventtime.Watermark;
import org.apache.flink.api.common.eventtime.WatermarkGenerator;
import org.apache.flink.api.common.eventtime.WatermarkOutput;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;

/**
 * The watermark of one partition: the latest end time less what records may be out of order by.
 *
 * <p>A record from the future moves it no further than the wall clock and what clocks may be ahead: one agent whose clock is
 * wrong must not make all others late. What could not be read has no time, and moves nothing.
 */
final class EventTime implements WatermarkGenerator<FlowRecord> {
    private final long outOfOrder;
    private final long ahead;
    private long latest = Long.MIN_VALUE;

    private EventTime(long outOfOrder, long ahead) {
        this.outOfOrder = outOfOrder;
        this.ahead = ahead;
    }

    static WatermarkStrategy<FlowRecord> strategy(Duration outOfOrder, Duration ahead, Duration idle) {
        long order = outOfOrder.toMillis();
        long future = ahead.toMillis();
        return WatermarkStrategy.<FlowRecord>forGenerator(context -> new EventTime(order, future))
                .withTimestampAssigner((record, timestamp) -> record.countedAt)
                .withIdleness(idle);
    }

    @Override
    public void onEvent(FlowRecord record, long timestamp, WatermarkOutput output) {
        if (!record.malformed) {
            latest = Math.max(latest, Math.min(timestamp, System.currentTimeMillis() + ahead));
        }
    }

    @Override
    public void onPeriodicEmit(WatermarkOutput output) {
        if (latest != Long.MIN_VALUE) {
            output.emitWatermark(new Watermark(latest - outOfOrder - 1));
        }
    }
}
