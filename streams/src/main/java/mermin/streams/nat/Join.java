package mermin.streams.nat;

import java.util.ArrayList;
import java.util.List;
import mermin.streams.conversation.Conversation;
import mermin.streams.conversation.Hop;
import mermin.streams.conversation.Loss;
import mermin.streams.record.Tuple;

/** One conversation out of the two sides of a NAT. */
final class Join {
    private Join() {}

    static Conversation of(Match.Kind kind, Sides sides) {
        Conversation first = sides.first();
        Conversation second = sides.second();
        boolean comparable = Match.isSamePart(first, second);
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
        c.forward = behind(first.forward, second.forward, 0, first.tuples.size(), comparable);
        c.reverse = behind(second.reverse, first.reverse, first.tuples.size(), 0, comparable);
        c.forwardBy = first.forwardBy.compareTo(second.forwardBy) > 0 ? first.forwardBy : second.forwardBy;
        c.reverseBy = first.reverseBy.compareTo(second.reverseBy) > 0 ? first.reverseBy : second.reverseBy;
        c.translatedFrom = first.translatedFrom;
        c.translatedTo = second.translatedTo;
        c.doubt = Math.min(first.doubt, second.doubt);
        c.natKind = ends(c.tuples);
        c.natMatchedBy = joined(first.natMatchedBy, joined(by(kind, first, second), second.natMatchedBy));
        return c;
    }

    private static String by(Match.Kind kind, Conversation first, Conversation second) {
        if (kind.isSaid()) {
            return "conntrack";
        }
        return Match.sharedNode(first, second) == null ? "time and size" : "time and size at one node";
    }

    private static String joined(String a, String b) {
        return a == null ? b : b == null ? a : a + ", " + b;
    }

    /** Which ends were rewritten, from each tuple to the next. */
    private static String ends(List<Tuple> tuples) {
        String ends = null;
        for (int i = 1; i < tuples.size(); i++) {
            ends = joined(ends, Match.ends(tuples.get(i - 1), tuples.get(i)));
        }
        return ends;
    }

    /** Where counts are since another part there is no saying what was lost from the one side to the other. */
    private static List<Hop> behind(List<Hop> before, List<Hop> after, int tupleBefore, int tupleAfter, boolean comparable) {
        List<Hop> hops = new ArrayList<>();
        before.forEach(hop -> hop.tuple += tupleBefore);
        after.forEach(hop -> hop.tuple += tupleAfter);
        hops.addAll(before);
        hops.addAll(after);
        if (comparable) {
            Loss.between(hops);
        }
        return hops;
    }
}
