package mermin.streams.nat;

import java.util.ArrayList;
import java.util.List;
import mermin.streams.conversation.Conversation;
import mermin.streams.conversation.Hop;
import mermin.streams.conversation.Loss;

/** One conversation out of the two sides of a NAT. */
final class Join {
    private Join() {}

    static Conversation of(Match.Kind kind, Conversation a, Conversation b) {
        Conversation first = Match.isFirst(a, b) ? a : b;
        Conversation second = first == a ? b : a;
        Conversation c = new Conversation();
        c.id = first.id;
        c.event = first.event;
        c.part = first.part;
        c.complete = first.complete && second.complete;
        c.communityIds.addAll(first.communityIds);
        c.communityIds.addAll(second.communityIds);
        c.tuples.addAll(first.tuples);
        c.tuples.addAll(second.tuples);
        c.source = first.source;
        c.destination = second.destination;
        c.start = Math.min(first.start, second.start);
        c.end = Math.max(first.end, second.end);
        c.forward = behind(first.forward, second.forward, 0, first.tuples.size());
        c.reverse = behind(second.reverse, first.reverse, first.tuples.size(), 0);
        c.forwardBy = first.forwardBy.compareTo(second.forwardBy) > 0 ? first.forwardBy : second.forwardBy;
        c.reverseBy = first.reverseBy.compareTo(second.reverseBy) > 0 ? first.reverseBy : second.reverseBy;
        c.translatedFrom = first.translatedFrom;
        c.translatedTo = second.translatedTo;
        c.natKind = joined(first.natKind, joined(Match.ends(first, second), second.natKind));
        c.natMatchedBy = joined(first.natMatchedBy, joined(by(kind, first, second), second.natMatchedBy));
        return c;
    }

    private static String by(Match.Kind kind, Conversation first, Conversation second) {
        if (kind == Match.Kind.CONNTRACK) {
            return "conntrack";
        }
        return Match.sharedNode(first, second) == null ? "time and size" : "time and size at one node";
    }

    private static String joined(String a, String b) {
        return a == null ? b : b == null ? a : a + ", " + b;
    }

    private static List<Hop> behind(List<Hop> before, List<Hop> after, int tupleBefore, int tupleAfter) {
        List<Hop> hops = new ArrayList<>();
        before.forEach(hop -> hop.tuple += tupleBefore);
        after.forEach(hop -> hop.tuple += tupleAfter);
        hops.addAll(before);
        hops.addAll(after);
        Loss.between(hops);
        return hops;
    }
}
