package mermin.streams.job;

import java.time.Instant;
import mermin.streams.record.Counts;
import mermin.streams.record.Direction;
import mermin.streams.record.FlowRecord;
import mermin.streams.record.Timing;
import org.apache.flink.api.common.functions.MapFunction;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.types.Row;

/** A record as a row of the table {@code records}, from which {@code traffic.sql} makes sums. */
final class TrafficRow implements MapFunction<FlowRecord, Row> {
    static final TypeInformation<Row> TYPE = Types.ROW_NAMED(
            new String[] {
                "counted_at", "end_time", "timing", "source_kind", "source_namespace", "source_name", "destination_kind",
                "destination_namespace", "destination_name", "packets", "ip_bytes", "frame_bytes", "reverse_packets",
                "reverse_ip_bytes", "reverse_frame_bytes", "packets_estimate", "ip_bytes_estimate", "reverse_packets_estimate",
                "reverse_ip_bytes_estimate", "begins", "ends"
            },
            Types.INSTANT, Types.INSTANT, Types.STRING, Types.STRING, Types.STRING, Types.STRING, Types.STRING, Types.STRING,
            Types.STRING, Types.LONG, Types.LONG, Types.LONG, Types.LONG, Types.LONG, Types.LONG, Types.LONG, Types.LONG, Types.LONG,
            Types.LONG, Types.LONG, Types.LONG);

    @Override
    public Row map(FlowRecord r) {
        Counts there = estimate(r.forward, r.newForward, r.isWhole());
        Counts back = estimate(r.reverse, r.newReverse, r.isWhole());
        return Row.of(
                Instant.ofEpochMilli(r.countedAt), Instant.ofEpochMilli(r.endMillis()),
                r.timing == Timing.ON_TIME ? null : r.timing.text(),
                r.source.kind.text(), r.source.namespace, r.source.name,
                r.destination.kind.text(), r.destination.namespace, r.destination.name,
                r.newForward.packets, r.newForward.bytes, r.newForward.frameBytes,
                r.newReverse.packets, r.newReverse.bytes, r.newReverse.frameBytes,
                there.packets, there.bytes, back.packets, back.bytes,
                r.begins ? 1L : 0L, r.ends ? 1L : 0L);
    }

    private static Counts estimate(Direction d, Counts added, boolean whole) {
        return whole && d.estimate != null ? d.estimate : added;
    }
}
