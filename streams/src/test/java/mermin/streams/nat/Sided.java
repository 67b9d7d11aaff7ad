package mermin.streams.nat;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import mermin.streams.conversation.Conversation;
import mermin.streams.conversation.Hop;
import mermin.streams.conversation.HopOrder;
import mermin.streams.record.Counts;
import mermin.streams.record.Tuple;
import mermin.streams.record.Workload;

/** Sides of a NAT for tests, and the way through the stages. */
final class Sided {
    static final long TOLERANCE = 1_000_000_000L;

    private Sided() {}

    static Tuple tuple(String source, int port, String destination) {
        Tuple t = new Tuple();
        t.protocol = 6;
        t.sourceAddress = source;
        t.sourcePort = port;
        t.destinationAddress = destination;
        t.destinationPort = 80;
        return t;
    }

    static Hop hop(String node, long packets, int ttl, long start) {
        Hop hop = new Hop();
        hop.node = node;
        hop.agent = "agent";
        hop.counts = new Counts(packets, packets * 100, packets * 114);
        hop.ttl = ttl;
        hop.start = start;
        return hop;
    }

    /** Answers take the way back, with the TTL counted down the other way. */
    static Conversation conversation(String id, Tuple tuple, Hop... hops) {
        Conversation c = new Conversation();
        c.id = id;
        c.event = Conversation.Event.END;
        c.complete = true;
        c.communityIds.add("1:" + id);
        c.tuples.add(tuple);
        c.source = new Workload(Workload.Kind.ADDRESS, null, tuple.sourceAddress);
        c.destination = new Workload(Workload.Kind.ADDRESS, null, tuple.destinationAddress);
        c.start = hops[0].start;
        c.end = hops[0].start + 10 * TOLERANCE;
        c.forwardBy = HopOrder.By.TTL;
        c.reverseBy = HopOrder.By.TTL;
        c.doubt = 0;
        for (Hop hop : hops) {
            c.forward.add(hop);
            c.reverse.add(0, hop(hop.node, hop.counts.packets, 128 - hop.ttl, hop.start));
        }
        return c;
    }

    static List<Conversation> due(Match.Kind kind, Conversation... all) {
        Candidates candidates = new Candidates();
        for (Conversation c : all) {
            candidates.add(c, 100);
        }
        assertEquals(List.of(), candidates.due(kind, 99, TOLERANCE).conversations());
        List<Conversation> out = candidates.due(kind, 100, TOLERANCE).conversations();
        assertEquals(0, candidates.waiting.size());
        return out;
    }

    /** Through the stages for what is said, each by its key, as the job has them. */
    static List<Conversation> said(Conversation... all) {
        List<Conversation> left = List.of(all);
        for (Match.Kind kind : List.of(Match.Kind.SAID_BEFORE, Match.Kind.SAID_BEHIND)) {
            Map<String, List<Conversation>> byKey = new TreeMap<>();
            left.forEach(c -> byKey.computeIfAbsent(kind.key(c), key -> new ArrayList<>()).add(c));
            List<Conversation> out = new ArrayList<>();
            byKey.values().forEach(group -> out.addAll(due(kind, group.toArray(Conversation[]::new))));
            left = out;
        }
        return left;
    }
}
