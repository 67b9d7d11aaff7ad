package mermin.streams.duplicates;

import java.util.ArrayList;
import java.util.List;
import mermin.streams.record.Event;
import mermin.streams.record.FlowRecord;

/**
 * What of one flow was counted already: which stretches of its totals.
 *
 * <p>A record covers what lies between its totals less its deltas, and its totals. An agent that crashed sends again what was
 * not acknowledged, and an output that lags behind sends neighbouring records as one ({@code flow.sequence} has a gap then):
 * what comes a second time may be cut differently. So sequences alone don't do: {@code 3} and {@code 4}, then after the crash
 * {@code 3..5} as one record with the sequence {@code 5}. By stretches the second one adds what 5 had, and nothing else.
 *
 * <p>Room: the end of what was told, and up to {@value #GAPS} gaps before it (reports that were dropped, or come out of
 * order). One more, and the oldest is given up: what lies before its end can't be checked any more, and is counted as new.
 */
public class Coverage {
    static final int GAPS = 16;

    /** What a record turned out to be. */
    public enum Verdict {
        NEW,
        /** All of it was counted before, and what it says has begun or ended had. */
        DUPLICATE,
        /** A part of it was; all packets of one that says a beginning or an end for the first time may be. */
        OVERLAP,
        /** Older than what is remembered: counted, though it may have been before. */
        UNCHECKED
    }

    /** A stretch that no record has told. */
    public static class Gap {
        public Totals from = new Totals();
        public Totals to = new Totals();

        public Gap() {}

        Gap(Totals from, Totals to) {
            this.from = from;
            this.to = to;
        }
    }

    public Totals told = new Totals();
    public Totals forgotten = new Totals();
    public List<Gap> gaps = new ArrayList<>();
    public boolean began;
    public boolean started;
    public boolean ended;
    /** Event time of the latest record, in milliseconds: from then on it is remembered for a while. */
    public long touched = Long.MIN_VALUE;

    /** Says what the record adds, in the record too, and remembers it. */
    public Verdict take(FlowRecord r) {
        Totals delta = new Totals(r.forward.delta, r.reverse.delta);
        Totals to = new Totals(r.forward.total, r.reverse.total);
        Totals from = to.minus(delta);
        boolean repeatsEvent = r.event == Event.START && started || r.event == Event.END && ended;
        // An end is news also where all its packets were told: it may have been merged with a report that had come.
        boolean newEvent = !repeatsEvent && r.event != Event.UPDATE;
        started |= r.event == Event.START;

        boolean unchecked = delta.packets() > 0 && from.packets() < forgotten.packets();
        Totals added = delta.packets() > 0 ? cover(from, to) : new Totals();
        r.newForward = added.forward;
        r.newReverse = added.reverse;
        if (added.packets() == 0 && !newEvent && (delta.packets() > 0 || repeatsEvent)) {
            return Verdict.DUPLICATE;
        }
        r.begins = !began && from.packets() == 0;
        began |= r.begins;
        r.ends = r.event == Event.END && !ended;
        ended |= r.event == Event.END;
        if (unchecked) {
            return Verdict.UNCHECKED;
        }
        return added.packets() == delta.packets() ? Verdict.NEW : Verdict.OVERLAP;
    }

    private Totals cover(Totals from, Totals to) {
        Totals added = new Totals();
        if (from.packets() < forgotten.packets()) {
            added = added.plus(Totals.earlierOf(to, forgotten).minus(from));
        }
        List<Gap> left = new ArrayList<>();
        for (Gap gap : gaps) {
            Totals first = Totals.laterOf(gap.from, from);
            Totals last = Totals.earlierOf(gap.to, to);
            if (first.packets() >= last.packets()) {
                left.add(gap);
                continue;
            }
            added = added.plus(last.minus(first));
            keep(left, gap.from, first);
            keep(left, last, gap.to);
        }
        if (to.packets() > told.packets()) {
            Totals first = Totals.laterOf(told, from);
            keep(left, told, first);
            added = added.plus(to.minus(first));
            told = to;
        }
        while (left.size() > GAPS) {
            forgotten = left.remove(0).to;
        }
        gaps = left;
        return added;
    }

    private static void keep(List<Gap> gaps, Totals from, Totals to) {
        if (from.packets() < to.packets()) {
            gaps.add(new Gap(from, to));
        }
    }
}
