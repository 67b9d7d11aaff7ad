package mermin.streams.duplicates;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import mermin.streams.duplicates.Coverage.Verdict;
import mermin.streams.record.Counts;
import mermin.streams.record.Event;
import mermin.streams.record.FlowRecord;
import mermin.streams.record.Flows;
import org.junit.jupiter.api.Test;

class CoverageTest {
    private static List<FlowRecord> flow(int records) {
        return flow(records, false);
    }

    /** The end may tell nothing but that it is the end. */
    private static List<FlowRecord> flow(int records, boolean emptyEnd) {
        Flows flow = new Flows("f", "n", 0);
        List<FlowRecord> all = new ArrayList<>();
        for (int i = 0; i < records; i++) {
            boolean last = i + 1 == records;
            boolean empty = last && emptyEnd;
            all.add(flow.next(last ? Event.END : Event.UPDATE, 1000L * i, empty ? 0 : 1 + i, empty ? 0 : i));
        }
        return all;
    }

    @Test
    void whatComesTwiceAddsNothing() {
        Coverage coverage = new Coverage();
        for (FlowRecord r : flow(5)) {
            assertEquals(Verdict.NEW, coverage.take(r));
            assertEquals(Verdict.DUPLICATE, coverage.take(Flows.copy(r)));
        }
    }

    @Test
    void whatIsCutDifferentlyAddsWhatIsNew() {
        List<FlowRecord> all = flow(3);
        Coverage coverage = new Coverage();
        coverage.take(all.get(0));
        FlowRecord both = Flows.merged(all.get(0), all.get(1));
        assertEquals(Verdict.OVERLAP, coverage.take(both));
        assertEquals(new Counts(2, 200, 228), both.newForward);
        assertEquals(new Counts(1, 100, 114), both.newReverse);
        assertEquals(Verdict.DUPLICATE, coverage.take(all.get(1)));
        assertEquals(Verdict.NEW, coverage.take(all.get(2)));
    }

    @Test
    void anEndWithoutCountsIsTheEndOnce() {
        Flows flow = new Flows("f", "n", 0);
        Coverage coverage = new Coverage();
        FlowRecord start = flow.next(Event.START, 0, 0, 0);
        assertEquals(Verdict.NEW, coverage.take(start));
        assertEquals(Verdict.DUPLICATE, coverage.take(Flows.copy(start)));
        FlowRecord first = flow.next(Event.UPDATE, 1, 3, 3);
        coverage.take(first);
        FlowRecord end = flow.next(Event.END, 1, 0, 0);
        assertEquals(Verdict.NEW, coverage.take(end));
        assertEquals(Verdict.DUPLICATE, coverage.take(Flows.copy(end)));
        assertEquals(List.of(true, false, true), List.of(start.begins, first.begins, end.ends));
    }

    /** Merged with a report that had come: its packets are told, that it was the end is not. */
    @Test
    void anEndWhosePacketsAreToldIsNews() {
        Flows flow = new Flows("f", "n", 0);
        Coverage coverage = new Coverage();
        FlowRecord first = flow.next(Event.UPDATE, 0, 2, 2);
        FlowRecord second = flow.next(Event.UPDATE, 1, 3, 3);
        FlowRecord end = flow.next(Event.END, 1, 0, 0);
        coverage.take(first);
        coverage.take(second);
        FlowRecord merged = Flows.merged(second, end);
        assertEquals(Verdict.OVERLAP, coverage.take(merged));
        assertEquals(List.of(new Counts(), new Counts(), true), List.of(merged.newForward, merged.newReverse, merged.ends));
        assertEquals(Verdict.DUPLICATE, coverage.take(Flows.copy(merged)));
        assertEquals(Verdict.DUPLICATE, coverage.take(end));
    }

    /** However a flow is cut, sent again and shuffled: all of it is counted once. */
    @Test
    void inAnyOrderAndAnyCutAllIsCountedOnce() {
        Random random = new Random(11);
        for (int round = 0; round < 3000; round++) {
            List<FlowRecord> all = flow(2 + random.nextInt(11), random.nextBoolean());
            List<FlowRecord> sent = new ArrayList<>();
            // Cut another way the second time, also where the first try never brought the end.
            int first = random.nextInt(4) == 0 ? all.size() - 1 : all.size();
            for (FlowRecord r : all.subList(0, first)) {
                sent.add(Flows.copy(r));
            }
            if (first < all.size()) {
                sent.add(Flows.merged(all.get(first - 1), all.get(first)));
            }
            for (int again = random.nextInt(8); again > 0; again--) {
                int from = random.nextInt(all.size());
                FlowRecord merged = Flows.copy(all.get(from));
                for (int i = from + 1; i < all.size() && random.nextBoolean(); i++) {
                    merged = Flows.merged(merged, all.get(i));
                }
                sent.add(random.nextInt(sent.size() + 1), merged);
            }
            java.util.Collections.shuffle(sent, random);
            Coverage coverage = new Coverage();
            Counts there = new Counts();
            Counts back = new Counts();
            int begun = 0;
            int ended = 0;
            for (FlowRecord r : sent) {
                if (coverage.take(r) != Verdict.DUPLICATE) {
                    there = there.plus(r.newForward);
                    back = back.plus(r.newReverse);
                    begun += r.begins ? 1 : 0;
                    ended += r.ends ? 1 : 0;
                }
            }
            FlowRecord last = all.get(all.size() - 1);
            assertEquals(last.forward.total, there);
            assertEquals(last.reverse.total, back);
            assertEquals(List.of(1, 1, 0), List.of(begun, ended, coverage.gaps.size()));
        }
    }

    /** Beyond the bound the oldest gap is given up: what comes for it later is counted, and said to be unchecked. */
    @Test
    void gapsAreBounded() {
        List<FlowRecord> all = flow(2 * Coverage.GAPS + 6);
        Coverage coverage = new Coverage();
        for (int i = 1; i < all.size(); i += 2) {
            coverage.take(all.get(i));
            assertEquals(true, coverage.gaps.size() <= Coverage.GAPS);
        }
        assertEquals(Verdict.UNCHECKED, coverage.take(all.get(0)));
        assertEquals(all.get(0).forward.delta, all.get(0).newForward);
        assertEquals(Verdict.NEW, coverage.take(all.get(all.size() - 2)));
    }
}
