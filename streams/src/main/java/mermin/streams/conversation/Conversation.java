package mermin.streams.conversation;

import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import mermin.streams.record.Counts;
import mermin.streams.record.Tuple;
import mermin.streams.record.Workload;

/** The observations of one flow by several agents, as one. */
public class Conversation {
    /** Why it is released. */
    public enum Event {
        /** All have ended, or were not heard of for long. */
        END,
        /** It has lasted long and goes on: what came since the part before. */
        PART,
        /** Somebody's view of one that was released already: its packets are in that one. */
        LATE
    }

    /** The id of the flow that began first. */
    public String id;
    public Event event;
    public int part;
    /** Whether every agent said that its flow has ended. */
    public boolean complete;
    public List<String> communityIds = new ArrayList<>();
    /** One, or, where NAT rewrote it, that of the initiator and that of the other end. */
    public List<Tuple> tuples = new ArrayList<>();
    public Workload source;
    public Workload destination;
    /** First and last packet that anybody saw, nanoseconds since 1970. */
    public long start;
    public long end;
    public List<Hop> forward = new ArrayList<>();
    public List<Hop> reverse = new ArrayList<>();
    public HopOrder.By forwardBy;
    public HopOrder.By reverseBy;
    /** How sure it is that the source began, as in a record: 0 by a SYN. */
    public int doubt;
    /** The tuples in front of the first and behind the last, as a host's connection tracking has them; null without. */
    public Tuple translatedFrom;
    public Tuple translatedTo;
    /** What joined two tuples; null without NAT. */
    public String natMatchedBy;
    public String natKind;
    /** Several others could be the other side of a NAT, so none was taken. */
    public boolean natAmbiguous;

    public Tuple first() {
        return tuples.get(0);
    }

    public Tuple last() {
        return tuples.get(tuples.size() - 1);
    }

    /** Each packet once: what the first hop of the direction has. Nothing of a late view, whose packets were told. */
    public Counts counts(boolean isForward) {
        return event == Event.LATE ? new Counts() : sum(way(isForward), false);
    }

    /** The same as estimated; the counts themselves without sampling. */
    public Counts estimate(boolean isForward) {
        return event == Event.LATE ? new Counts() : sum(way(isForward), true);
    }

    public boolean isSampled() {
        return forward.stream().anyMatch(hop -> hop.sampled) || reverse.stream().anyMatch(hop -> hop.sampled);
    }

    public List<Hop> way(boolean isForward) {
        return isForward ? forward : reverse;
    }

    /**
     * The same with source and destination exchanged. Which tuple is before translation and which behind it stays: a host said
     * so. What went back goes there, so hops come from the first tuple to the last. {@link #natKind}, which ends were rewritten,
     * is left to who joins it.
     */
    public Conversation turned() {
        Conversation c = new Conversation();
        c.id = id;
        c.event = event;
        c.part = part;
        c.complete = complete;
        c.communityIds = communityIds;
        tuples.forEach(tuple -> c.tuples.add(tuple.reversed()));
        c.source = destination;
        c.destination = source;
        c.start = start;
        c.end = end;
        c.forward = byTuple(reverse, Comparator.comparingInt(hop -> hop.tuple));
        c.reverse = byTuple(forward, Comparator.comparingInt(hop -> -hop.tuple));
        c.forwardBy = reverseBy;
        c.reverseBy = forwardBy;
        c.doubt = doubt;
        c.translatedFrom = Tuple.reversed(translatedFrom);
        c.translatedTo = Tuple.reversed(translatedTo);
        c.natMatchedBy = natMatchedBy;
        c.natAmbiguous = natAmbiguous;
        return c;
    }

    private static List<Hop> byTuple(List<Hop> hops, Comparator<Hop> order) {
        List<Hop> sorted = new ArrayList<>(hops);
        sorted.sort(order);
        Loss.between(sorted);
        return sorted;
    }

    private static Counts sum(List<Hop> hops, boolean estimated) {
        Counts sum = new Counts();
        for (int i = 0; i < hops.size() && (i == 0 || hops.get(i).parallel); i++) {
            Hop hop = hops.get(i);
            sum = sum.plus(estimated && hop.estimate != null ? hop.estimate : hop.counts);
        }
        return sum;
    }
}
