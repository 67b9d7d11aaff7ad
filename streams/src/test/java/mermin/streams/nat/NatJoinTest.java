package mermin.streams.nat;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.List;
import mermin.streams.conversation.Conversation;
import mermin.streams.conversation.Hop;
import mermin.streams.conversation.HopOrder;
import mermin.streams.record.Tuple;
import mermin.streams.record.Workload;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.streaming.api.operators.KeyedProcessOperator;
import org.apache.flink.streaming.util.KeyedOneInputStreamOperatorTestHarness;
import org.junit.jupiter.api.Test;

class NatJoinTest {
    private static final long WAIT = 30_000;

    private static KeyedOneInputStreamOperatorTestHarness<String, Conversation, Conversation> stage(Match.Kind kind) throws Exception {
        var harness = new KeyedOneInputStreamOperatorTestHarness<>(
                new KeyedProcessOperator<>(new NatJoin(kind, WAIT, 1_000_000_000L)), kind::key, Types.STRING);
        harness.open();
        return harness;
    }

    private static Tuple tuple(String destination, Integer port) {
        Tuple t = new Tuple();
        t.protocol = 6;
        t.sourceAddress = "10.0.0.1";
        t.sourcePort = port;
        t.destinationAddress = destination;
        t.destinationPort = port;
        return t;
    }

    private static Conversation conversation(String id, Tuple tuple) {
        Conversation c = new Conversation();
        c.id = id;
        c.event = Conversation.Event.END;
        c.communityIds.add("1:" + id);
        c.tuples.add(tuple);
        c.source = new Workload(Workload.Kind.ADDRESS, null, tuple.sourceAddress);
        c.destination = new Workload(Workload.Kind.ADDRESS, null, tuple.destinationAddress);
        c.forwardBy = HopOrder.By.SINGLE;
        c.reverseBy = HopOrder.By.SINGLE;
        Hop hop = new Hop();
        hop.node = id;
        hop.agent = "agent";
        c.forward.add(hop);
        return c;
    }

    /** Else a side that goes past a stage is gone from the next one when the other comes there. */
    @Test
    void whatSaysNothingWaitsAsLongAsWhatDoes() throws Exception {
        for (Match.Kind kind : Match.Kind.values()) {
            try (var harness = stage(kind)) {
                Conversation says = conversation("a", tuple("10.96.0.1", 80));
                says.translatedTo = tuple("10.2.0.1", 80);
                harness.processElement(says, 1000);
                harness.processElement(conversation("b", tuple("10.2.0.9", 80)), 1000);
                Conversation late = conversation("c", tuple("10.2.0.9", 80));
                late.event = Conversation.Event.LATE;
                harness.processElement(late, 1000);
                harness.processElement(conversation("d", tuple("10.2.0.9", null)), 1000);
                harness.processWatermark(1000 + WAIT - 1);
                assertEquals(List.of("c", "d"), ids(harness.extractOutputValues()), kind.text());
                harness.processWatermark(1000 + WAIT);
                assertEquals(List.of("a", "b", "c", "d"), ids(harness.extractOutputValues()), kind.text());
                assertEquals(0, harness.numKeyedStateEntries());
            }
        }
    }

    @Test
    void aSideThatComesWithinTheWaitIsJoinedAndGoesOnInTime() throws Exception {
        try (var harness = stage(Match.Kind.SAID_BEHIND)) {
            Conversation behind = conversation("b", tuple("10.2.0.9", 80));
            behind.translatedFrom = tuple("10.96.0.1", 80);
            harness.processElement(conversation("a", tuple("10.96.0.1", 80)), 1000);
            harness.processWatermark(WAIT);
            harness.processElement(behind, 1000 + WAIT - 1);
            harness.processWatermark(1000 + WAIT);
            assertEquals(List.of("a"), ids(harness.extractOutputValues()));
            assertEquals(2, harness.extractOutputValues().get(0).tuples.size());
        }
    }

    private static List<String> ids(List<Conversation> all) {
        return all.stream().map(c -> c.id).sorted().toList();
    }
}
