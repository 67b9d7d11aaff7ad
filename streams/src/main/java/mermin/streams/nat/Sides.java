package mermin.streams.nat;

import java.util.List;
import mermin.streams.conversation.Conversation;
import mermin.streams.conversation.Hop;

/**
 * The two sides of a NAT in order, both with the same end as source.
 *
 * <p>Agents that saw no SYN may take either end for the initiator, and those of one side another one than those of the other.
 * Where a host says which side is before translation, three things tell who began: an agent that saw the SYN (or what is as
 * sure); else TTLs, which go down from the side before to the side behind on the initiator's way, and up on the way back;
 * else the better guess. Where none of them does it is not joined: half of the counts would stand for the wrong direction.
 */
record Sides(Conversation first, Conversation second) {
    /** From here on {@code flow.initiator} is a guess: by ports, or by the first packet that was seen. */
    private static final int GUESS = 4;

    /** Null where it can't be told who began. */
    static Sides of(Match.Kind kind, Conversation a, Conversation b) {
        if (!kind.isSaid()) {
            return Match.isFirst(a, b) ? new Sides(a, b) : new Sides(b, a);
        }
        Conversation first = Match.isSaid(a, b) ? a : b;
        Conversation second = first == a ? b : a;
        boolean agree = first.translatedTo != null
                ? first.translatedTo.equals(second.first()) : second.translatedFrom.equals(first.last());
        Conversation same = agree ? second : second.turned();
        int apart = first.doubt - second.doubt;
        boolean sure = Math.min(first.doubt, second.doubt) < GUESS && (agree || apart != 0);
        int down = down(first, same);
        if (!agree && !sure && down == 0 && apart == 0) {
            return null;
        }
        boolean asFirst = sure || down == 0 ? agree || apart < 0 : down > 0;
        return asFirst ? new Sides(first, same) : new Sides(first.turned(), agree ? second.turned() : second);
    }

    /** Positive where TTLs go down from the first side to the second on the source's way, negative where they go up. */
    private static int down(Conversation first, Conversation second) {
        int there = down(first.forward, second.forward);
        int back = down(second.reverse, first.reverse);
        // Where the two ways say the opposite, neither is believed.
        return there * back < 0 ? 0 : there + back;
    }

    private static int down(List<Hop> from, List<Hop> to) {
        int before = Match.ttl(from);
        int behind = Match.ttl(to);
        return before == 0 || behind == 0 ? 0 : Integer.signum(before - behind);
    }
}
