package mermin.streams.conversation;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.List;
import java.util.Map;
import mermin.streams.record.Event;
import mermin.streams.record.FlowRecord;
import mermin.streams.record.Flows;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.runtime.checkpoint.OperatorSubtaskState;
import org.apache.flink.streaming.api.operators.KeyedProcessOperator;
import org.apache.flink.streaming.util.KeyedOneInputStreamOperatorTestHarness;
import org.junit.jupiter.api.Test;

class ConversationsTest {
    private static final Patience PATIENCE = new Patience(90_000, 300_000, 3_600_000, 900_000, 1_000);

    private static KeyedOneInputStreamOperatorTestHarness<String, FlowRecord, Conversation> operator(OperatorSubtaskState state)
            throws Exception {
        var harness = new KeyedOneInputStreamOperatorTestHarness<>(
                new KeyedProcessOperator<>(new Conversations(PATIENCE)), (FlowRecord r) -> r.communityId, Types.STRING);
        // Every type in the state has a serializer of its own.
        harness.getExecutionConfig().getSerializerConfig()
                .configure(Configuration.fromMap(Map.of("pipeline.generic-types", "false")), Conversations.class.getClassLoader());
        if (state != null) {
            harness.initializeState(state);
        }
        harness.open();
        return harness;
    }

    @Test
    void whatWasToldIsKnownOverARestart() throws Exception {
        Flows flow = new Flows("a", "a", 0);
        FlowRecord first = flow.next(Event.UPDATE, 1000, 10, 0);
        FlowRecord middle = flow.next(Event.UPDATE, 2000, 20, 1);
        FlowRecord end = flow.next(Event.END, 3000, 5, 1);
        OperatorSubtaskState state;
        try (var harness = operator(null)) {
            harness.processElement(first, 1000);
            harness.processElement(end, 3000);
            harness.processWatermark(93_000);
            assertEquals(List.of(35L), harness.extractOutputValues().stream().map(c -> c.counts(true).packets).toList());
            state = harness.snapshot(1, 1);
        }
        try (var harness = operator(state)) {
            middle.countedAt = 100_000;
            harness.processElement(middle, 100_000);
            harness.processWatermark(190_000);
            Conversation c = harness.extractOutputValues().get(0);
            assertEquals(List.of(0L, 1), List.of(c.counts(true).packets, c.part));
            harness.processWatermark(190_000 + 900_000);
            assertEquals(0, harness.numKeyedStateEntries());
        }
    }
}
