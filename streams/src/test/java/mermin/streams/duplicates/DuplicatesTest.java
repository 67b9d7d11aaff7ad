package mermin.streams.duplicates;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.List;
import mermin.streams.job.Count;
import mermin.streams.record.Event;
import mermin.streams.record.FlowRecord;
import mermin.streams.record.Flows;
import mermin.streams.record.Timing;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.runtime.checkpoint.OperatorSubtaskState;
import org.apache.flink.streaming.util.KeyedOneInputStreamOperatorTestHarness;
import org.junit.jupiter.api.Test;

class DuplicatesTest {
    private static final long MEMORY = 600_000;
    private static final long AHEAD = 60_000;
    /** The wall clock of the tests. */
    private static final long NOW = 1_800_000_000_000L;
    private static final long MINUTE = 60_000;

    private static KeyedOneInputStreamOperatorTestHarness<String, FlowRecord, FlowRecord> operator(OperatorSubtaskState state)
            throws Exception {
        var harness = new KeyedOneInputStreamOperatorTestHarness<>(
                new DuplicatesOperator(new Duplicates(MEMORY, AHEAD)), (FlowRecord r) -> r.communityId, Types.STRING);
        if (state != null) {
            harness.initializeState(state);
        }
        harness.open();
        harness.setProcessingTime(NOW);
        return harness;
    }

    private static FlowRecord record(String id, long end) {
        return new Flows(id, "n", end - 1000).next(Event.END, end, 3, 2);
    }

    private static long count(KeyedOneInputStreamOperatorTestHarness<String, FlowRecord, FlowRecord> harness, String name) {
        var all = harness.getSideOutput(Count.TAG);
        return all == null ? 0 : all.stream().filter(count -> count.getValue().name.equals(name)).count();
    }

    @Test
    void aRecordBehindItsClosedMinuteIsLateAndCountsNow() throws Exception {
        try (var harness = operator(null)) {
            harness.processWatermark(NOW + 10 * MINUTE - 1);
            harness.processElement(record("late", NOW + 9 * MINUTE + 59_999), 0);
            harness.processElement(record("just", NOW + 10 * MINUTE), 0);
            List<FlowRecord> out = harness.extractOutputValues();
            // Both are ahead of the wall clock, but only what is ahead of the allowance is so for the job.
            assertEquals(List.of(Timing.AHEAD, Timing.AHEAD), out.stream().map(r -> r.timing).toList());
        }
        try (var harness = operator(null)) {
            harness.processWatermark(NOW - 1);
            harness.processElement(record("late", NOW - 1), 0);
            harness.processElement(record("open", NOW), 0);
            List<FlowRecord> out = harness.extractOutputValues();
            assertEquals(List.of(Timing.LATE, Timing.ON_TIME), out.stream().map(r -> r.timing).toList());
            assertEquals(List.of(NOW, NOW), out.stream().map(r -> r.countedAt).toList());
            assertEquals(1, count(harness, "late"));
        }
    }

    /** Windows behind keep their watermark over a restart, so this operator has to as well. */
    @Test
    void whatWasLateStaysLateOverARestart() throws Exception {
        OperatorSubtaskState state;
        try (var harness = operator(null)) {
            harness.processElement(record("a", NOW - 5 * MINUTE), 0);
            // No record follows the last watermark before the checkpoint.
            harness.processWatermark(NOW);
            state = harness.snapshot(1, 1);
        }
        try (var harness = operator(state)) {
            harness.processElement(record("b", NOW - 5 * MINUTE), 0);
            FlowRecord r = harness.extractOutputValues().get(0);
            assertEquals(Timing.LATE, r.timing);
            assertEquals(NOW + 1, r.countedAt);
            harness.processElement(record("a", NOW - 5 * MINUTE), 0);
            assertEquals(1, count(harness, "duplicate"));
        }
    }

    @Test
    void flowsAreForgottenInTimeAndWhatIsOlderIsCountedUnchecked() throws Exception {
        try (var harness = operator(null)) {
            harness.processElement(record("a", NOW - 5 * MINUTE), 0);
            harness.processWatermark(NOW - 5 * MINUTE + MEMORY - 1);
            harness.processElement(record("a", NOW - 5 * MINUTE), 0);
            assertEquals(1, count(harness, "duplicate"));
            // The late duplicate was heard now; it is remembered from the first one's time all the same.
            harness.processWatermark(NOW + 2 * MEMORY);
            assertEquals(0, harness.numKeyedStateEntries());
            harness.processElement(record("a", NOW - 5 * MINUTE), 0);
            assertEquals(1, count(harness, "unchecked"));
            assertEquals(0, harness.numKeyedStateEntries());
            assertEquals(2, harness.extractOutputValues().size());
        }
    }

    @Test
    void oneFromTheFutureCountsNowAndHoldsNoState() throws Exception {
        try (var harness = operator(null)) {
            harness.processWatermark(NOW - MINUTE);
            harness.processElement(record("a", NOW + 1000 * MINUTE), 0);
            FlowRecord r = harness.extractOutputValues().get(0);
            assertEquals(Timing.AHEAD, r.timing);
            assertEquals(NOW + AHEAD, r.countedAt);
            harness.processWatermark(NOW + AHEAD + MEMORY + MINUTE);
            assertEquals(0, harness.numKeyedStateEntries());
        }
    }

    @Test
    void whatCannotBeReadIsCounted() throws Exception {
        try (var harness = operator(null)) {
            FlowRecord malformed = new FlowRecord();
            malformed.malformed = true;
            malformed.communityId = "";
            harness.processElement(malformed, 0);
            assertEquals(1, count(harness, "malformed"));
            assertEquals(0, harness.extractOutputValues().size());
        }
    }
}
