package mermin.streams.nat;

import java.util.List;
import mermin.streams.conversation.Conversation;
import mermin.streams.conversation.Hop;
import mermin.streams.record.Counts;
import mermin.streams.record.Tuple;

/**
 * Whether two conversations are the two sides of one NAT: because the host that did it says so (its connection tracking is
 * in its agent's records), or as far as time and size tell.
 *
 * <p>One side's word is enough where the other says nothing against it: an agent may have seen one side only. Said tuples are
 * compared without regard to who is the source, which {@link Sides} settles, and need to have lived at one time; begin, end
 * and size may differ, as agents come later, cut or lose.
 *
 * <p>Destination NAT leaves the source's address and port as they are, source NAT the destination's. Where an agent saw both
 * sides, its one clock tells that both began at once, and the TTL is the same or one less. Else the sides began within what
 * clocks may differ, and the TTL goes down from the one to the other.
 *
 * <p>A client's port tells nearly all about a destination NAT, so packets may be lost where it was done: {@value #LOSS_PACKETS},
 * or one in {@value #LOSS_SHARE}. A service's address and port, which is all that both sides of a source NAT share, many
 * connections have at once: there packets and bytes of both directions have to be equal.
 */
public final class Match {
    static final long LOSS_PACKETS = 2;
    static final long LOSS_SHARE = 50;
    /** In which a host has done with a packet, in nanoseconds. */
    static final long PASSAGE = 20_000_000;

    /** What is looked at: what a host says (of what comes next, of what was before), or which end it left as it was. */
    public enum Kind {
        SAID_BEFORE, SAID_BEHIND, DESTINATION, SOURCE;

        public String text() {
            return name().toLowerCase(java.util.Locale.ROOT);
        }

        /** What both sides have in common. */
        public String key(Conversation c) {
            return switch (this) {
                // The tuple behind the translation, where the side before it names that, or is the first that this side has.
                case SAID_BEFORE -> (c.translatedTo != null ? c.translatedTo : c.first()).bothEnds();
                // The tuple before it, where the side behind names that. By the first key alone, one that is translated twice
                // would come only to what it becomes.
                case SAID_BEHIND -> (c.translatedFrom != null ? c.translatedFrom : c.last()).bothEnds();
                case DESTINATION -> c.last().sourceEnd();
                case SOURCE -> c.last().destinationEnd();
            };
        }

        boolean isSaid() {
            return this == SAID_BEFORE || this == SAID_BEHIND;
        }

        boolean isOfOneNat(Tuple a, Tuple b) {
            return this == DESTINATION
                    ? a.hasSourceEndOf(b) && !a.hasDestinationEndOf(b)
                    : a.hasDestinationEndOf(b) && !a.hasSourceEndOf(b);
        }
    }

    private Match() {}

    static boolean fits(Kind kind, Conversation a, Conversation b, long tolerance) {
        if (kind.isSaid()) {
            return (isSaid(a, b) || isSaid(b, a)) && overlap(a, b) >= -(sharedNode(a, b) == null ? tolerance : PASSAGE);
        }
        // What tells most apart comes first: a popular service has many to look at.
        if (Math.abs(a.start - b.start) > 2 * tolerance || overlap(a, b) < -tolerance || !isSamePart(a, b)) {
            return false;
        }
        if (!kind.isOfOneNat(a.last(), b.last())) {
            return false;
        }
        Conversation first = isFirst(a, b) ? a : b;
        Conversation second = first == a ? b : a;
        if (isSaidOtherwise(first.translatedTo, second.first()) || isSaidOtherwise(second.translatedFrom, first.last())) {
            return false;
        }
        Hop node = sharedNode(first, second);
        long apart = node == null ? tolerance : PASSAGE;
        return isOnePlace(kind, atEnd(first, true, node), atStart(second, true, node), apart, node != null)
                && isOnePlace(kind, atEnd(second, false, node), atStart(first, false, node), apart, node != null);
    }

    /** Whether packets can have gone from one hop to the other, with nothing between them but the NAT. */
    private static boolean isOnePlace(Kind kind, Hop from, Hop to, long apart, boolean sameNode) {
        if (from == null || to == null) {
            // Nothing ran this way, on both sides.
            return from == to;
        }
        int down = from.ttl - to.ttl;
        boolean ttl = from.ttl == 0 || to.ttl == 0 || down >= 0 && (!sameNode || down <= 1);
        return ttl && Math.abs(from.start - to.start) <= apart && haveEqualSize(kind, best(from), best(to));
    }

    private static long overlap(Conversation a, Conversation b) {
        return Math.min(a.end, b.end) - Math.max(a.start, b.start);
    }

    /** Whether counts of both are since the same part. */
    static boolean isSamePart(Conversation a, Conversation b) {
        return a.part == b.part && a.event == b.event;
    }

    /** Whether a host says that it makes {@code second} of {@code first}, and none that it doesn't. */
    static boolean isSaid(Conversation first, Conversation second) {
        return (first.translatedTo != null || second.translatedFrom != null)
                && !isSaidOtherwise(first.translatedTo, second.first()) && !isSaidOtherwise(second.translatedFrom, first.last());
    }

    private static boolean isSaidOtherwise(Tuple said, Tuple other) {
        return said != null && !said.hasBothEndsOf(other);
    }

    /** Which ends differ between the tuples of two sides. */
    static String ends(Tuple before, Tuple behind) {
        if (before.hasSourceEndOf(behind)) {
            return Kind.DESTINATION.text();
        }
        return before.hasDestinationEndOf(behind) ? Kind.SOURCE.text() : "source and destination";
    }

    /** Whether {@code a} is the side of the initiator: a host says so, or packets came there with a greater TTL, or earlier. */
    static boolean isFirst(Conversation a, Conversation b) {
        if (isSaid(a, b) != isSaid(b, a)) {
            return isSaid(a, b);
        }
        int ofA = ttl(a.forward);
        int ofB = ttl(b.forward);
        if (ofA != ofB && ofA > 0 && ofB > 0) {
            return ofA > ofB;
        }
        return a.start != b.start ? a.start < b.start : a.id.compareTo(b.id) < 0;
    }

    /** The greatest on a way; 0 where none is known. */
    static int ttl(List<Hop> way) {
        return way.stream().mapToInt(hop -> hop.ttl).max().orElse(0);
    }

    /** A hop of the host that saw both sides; null if none did. */
    static Hop sharedNode(Conversation a, Conversation b) {
        for (Hop hop : a.forward) {
            for (Hop other : b.forward) {
                if (hop.isAtNodeOf(other)) {
                    return hop;
                }
            }
        }
        return null;
    }

    /** The last hop on this side, at the node if one is named. */
    private static Hop atEnd(Conversation c, boolean forward, Hop node) {
        Hop found = null;
        for (Hop hop : c.way(forward)) {
            if (node == null || node.isAtNodeOf(hop)) {
                found = hop;
            }
        }
        return found;
    }

    private static Hop atStart(Conversation c, boolean forward, Hop node) {
        for (Hop hop : c.way(forward)) {
            if (node == null || node.isAtNodeOf(hop)) {
                return hop;
            }
        }
        return null;
    }

    private static Counts best(Hop hop) {
        return hop.estimate != null ? hop.estimate : hop.counts;
    }

    private static boolean haveEqualSize(Kind kind, Counts a, Counts b) {
        long apart = Math.abs(a.packets - b.packets);
        if (apart == 0) {
            return a.bytes == b.bytes;
        }
        long most = Math.max(a.packets, b.packets);
        return kind == Kind.DESTINATION && apart < most && apart <= Math.max(LOSS_PACKETS, most / LOSS_SHARE);
    }
}
