package mermin.streams.job;

import java.util.List;
import mermin.streams.conversation.Conversation;
import mermin.streams.conversation.Hop;
import mermin.streams.conversation.Loss;
import mermin.streams.record.Counts;
import mermin.streams.record.Times;
import mermin.streams.record.Tuple;
import org.apache.flink.api.common.functions.MapFunction;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.types.Row;

/** A conversation as a row of the table {@code conversation_rows}: the columns of {@code conversations} in topics.sql. */
final class ConversationRow implements MapFunction<Conversation, Row> {
    private static final TypeInformation<Row> TUPLE = Types.ROW_NAMED(
            new String[] {"community_id", "source_address", "source_port", "destination_address", "destination_port"},
            Types.STRING, Types.STRING, Types.INT, Types.STRING, Types.INT);
    private static final TypeInformation<Row> HOP = Types.ROW_NAMED(
            new String[] {
                "node", "agent", "interface", "hook", "tuple", "parallel", "ttl", "packets", "bytes", "frame_bytes",
                "packets_estimate", "bytes_estimate", "lost_packets", "lost_bytes"
            },
            Types.STRING, Types.STRING, Types.STRING, Types.STRING, Types.INT, Types.BOOLEAN, Types.INT, Types.LONG, Types.LONG,
            Types.LONG, Types.LONG, Types.LONG, Types.LONG, Types.LONG);
    static final TypeInformation<Row> TYPE = Types.ROW_NAMED(
            new String[] {
                "id", "event", "part", "complete", "community_id", "start_time", "end_time", "network_type", "transport",
                "transport_number", "source_address", "source_port", "destination_address", "destination_port", "icmp_type",
                "icmp_code", "source_kind", "source_namespace", "source_name", "destination_kind", "destination_namespace",
                "destination_name", "packets", "bytes", "frame_bytes", "packets_estimate", "bytes_estimate", "lost",
                "reverse_packets", "reverse_bytes", "reverse_frame_bytes", "reverse_packets_estimate", "reverse_bytes_estimate",
                "reverse_lost", "hops", "hops_by", "reverse_hops", "reverse_hops_by", "tuples", "nat_kind", "nat_matched_by",
                "nat_ambiguous"
            },
            Types.STRING, Types.STRING, Types.INT, Types.BOOLEAN, Types.STRING, Types.STRING, Types.STRING, Types.STRING,
            Types.STRING, Types.INT, Types.STRING, Types.INT, Types.STRING, Types.INT, Types.INT, Types.INT, Types.STRING,
            Types.STRING, Types.STRING, Types.STRING, Types.STRING, Types.STRING, Types.LONG, Types.LONG, Types.LONG, Types.LONG,
            Types.LONG, Types.LONG, Types.LONG, Types.LONG, Types.LONG, Types.LONG, Types.LONG, Types.LONG,
            Types.OBJECT_ARRAY(HOP), Types.STRING, Types.OBJECT_ARRAY(HOP), Types.STRING, Types.OBJECT_ARRAY(TUPLE), Types.STRING,
            Types.STRING, Types.BOOLEAN);

    @Override
    public Row map(Conversation c) {
        Tuple first = c.first();
        Counts there = c.counts(true);
        Counts back = c.counts(false);
        Counts thereInAll = c.isSampled() ? c.estimate(true) : null;
        Counts backInAll = c.isSampled() ? c.estimate(false) : null;
        return Row.of(
                c.id, lower(c.event), c.part, c.complete, c.communityIds.get(0), Times.text(c.start), Times.text(c.end),
                first.networkType, first.transport, first.protocol, first.sourceAddress, first.sourcePort,
                first.destinationAddress, first.destinationPort, first.icmpType, first.icmpCode,
                c.source.kind.text(), c.source.namespace, c.source.name,
                c.destination.kind.text(), c.destination.namespace, c.destination.name,
                there.packets, there.bytes, there.frameBytes, packets(thereInAll), bytes(thereInAll), Loss.total(c.forward),
                back.packets, back.bytes, back.frameBytes, packets(backInAll), bytes(backInAll), Loss.total(c.reverse),
                hops(c.forward), lower(c.forwardBy), hops(c.reverse), lower(c.reverseBy),
                tuples(c), c.natKind, c.natMatchedBy, c.natAmbiguous ? Boolean.TRUE : null);
    }

    private static String lower(Enum<?> word) {
        return word.name().toLowerCase(java.util.Locale.ROOT);
    }

    private static Long packets(Counts counts) {
        return counts == null ? null : counts.packets;
    }

    private static Long bytes(Counts counts) {
        return counts == null ? null : counts.bytes;
    }

    private static Row[] hops(List<Hop> hops) {
        return hops.stream().map(hop -> Row.of(
                hop.node, hop.agent, hop.interfaceName, hop.hook, hop.tuple, hop.parallel ? Boolean.TRUE : null,
                hop.ttl == 0 ? null : hop.ttl, hop.counts.packets, hop.counts.bytes, hop.counts.frameBytes,
                packets(hop.estimate), bytes(hop.estimate), hop.lost, hop.lostBytes)).toArray(Row[]::new);
    }

    /** Only where there are two: one is in the columns. */
    private static Row[] tuples(Conversation c) {
        if (c.tuples.size() < 2) {
            return null;
        }
        Row[] rows = new Row[c.tuples.size()];
        for (int i = 0; i < rows.length; i++) {
            Tuple t = c.tuples.get(i);
            rows[i] = Row.of(c.communityIds.get(i), t.sourceAddress, t.sourcePort, t.destinationAddress, t.destinationPort);
        }
        return rows;
    }
}
