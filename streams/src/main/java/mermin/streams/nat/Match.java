package mermin.streams.nat;

import mermin.streams.conversation.Conversation;
import mermin.streams.conversation.Hop;
import mermin.streams.record.Counts;
import mermin.streams.record.Tuple;

/**
 * Whether two conversations are the two sides of one NAT, as far as time and size tell.
 *
 * <p>Destination NAT leaves the source's address and port as they are, source NAT the destination's. Both sides began within
 * what clocks may differ, overlap, and have as many packets and bytes where the address was rewritten: at the host that saw
 * both, else at the two hosts on either side. Packets may be lost there: {@value #LOSS_PACKETS}, or one in {@value #LOSS_SHARE}.
 */
public final class Match {
    static final long LOSS_PACKETS = 2;
    static final long LOSS_SHARE = 50;

    /** Which end was rewritten. */
    public enum Kind {
        DESTINATION, SOURCE;

        public String text() {
            return name().toLowerCase(java.util.Locale.ROOT);
        }

        /** What both sides have in common. */
        public String key(Conversation c) {
            return this == DESTINATION ? c.last().sourceEnd() : c.last().destinationEnd();
        }

        boolean isOfOneNat(Tuple a, Tuple b) {
            return this == DESTINATION
                    ? a.sourceEnd().equals(b.sourceEnd()) && !a.destinationEnd().equals(b.destinationEnd())
                    : a.destinationEnd().equals(b.destinationEnd()) && !a.sourceEnd().equals(b.sourceEnd());
        }
    }

    private Match() {}

    static boolean fits(Kind kind, Conversation a, Conversation b, long tolerance) {
        return kind.isOfOneNat(a.last(), b.last())
                && a.part == b.part && a.event == b.event
                && Math.abs(a.start - b.start) <= tolerance
                && Math.min(a.end, b.end) - Math.max(a.start, b.start) >= -tolerance
                && (isFirst(a, b) ? haveEqualSize(a, b) : haveEqualSize(b, a));
    }

    /** Whether {@code a} is the side of the initiator: packets came there with a greater TTL, or earlier. */
    static boolean isFirst(Conversation a, Conversation b) {
        int ofA = ttl(a);
        int ofB = ttl(b);
        if (ofA != ofB && ofA > 0 && ofB > 0) {
            return ofA > ofB;
        }
        return a.start != b.start ? a.start < b.start : a.id.compareTo(b.id) < 0;
    }

    private static int ttl(Conversation c) {
        return c.forward.stream().mapToInt(hop -> hop.ttl).max().orElse(0);
    }

    private static boolean haveEqualSize(Conversation first, Conversation second) {
        String node = sharedNode(first, second);
        return isNear(atEnd(first, true, node), atStart(second, true, node))
                && isNear(atEnd(second, false, node), atStart(first, false, node));
    }

    /** The host that saw both sides; null if none did. */
    static String sharedNode(Conversation a, Conversation b) {
        for (Hop hop : a.forward) {
            if (b.forward.stream().anyMatch(other -> other.node.equals(hop.node) && other.agent.equals(hop.agent))) {
                return hop.node + "\n" + hop.agent;
            }
        }
        return null;
    }

    /** What the last hop before the rewriting had. */
    private static Counts atEnd(Conversation c, boolean forward, String node) {
        Counts counts = null;
        for (Hop hop : c.way(forward)) {
            if (node == null || node.equals(hop.node + "\n" + hop.agent)) {
                counts = best(hop);
            }
        }
        return counts == null ? new Counts() : counts;
    }

    private static Counts atStart(Conversation c, boolean forward, String node) {
        for (Hop hop : c.way(forward)) {
            if (node == null || node.equals(hop.node + "\n" + hop.agent)) {
                return best(hop);
            }
        }
        return new Counts();
    }

    private static Counts best(Hop hop) {
        return hop.estimate != null ? hop.estimate : hop.counts;
    }

    private static boolean isNear(Counts a, Counts b) {
        long apart = Math.abs(a.packets - b.packets);
        if (apart == 0) {
            return a.bytes == b.bytes;
        }
        return apart <= Math.max(LOSS_PACKETS, Math.max(a.packets, b.packets) / LOSS_SHARE) && Math.min(a.packets, b.packets) > 0;
    }
}
