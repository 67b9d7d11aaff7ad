package mermin.streams.nat;

import java.util.ArrayList;
import java.util.List;
import mermin.streams.conversation.Conversation;

/**
 * Conversations that have one end in common, each waiting for the other side of a NAT. The state of {@link NatJoin}, without
 * Flink.
 *
 * <p>Bounded: {@value #WAITING}. One more, and the one that waits longest goes on unchecked.
 */
public class Candidates {
    static final int WAITING = 1024;

    /** One that waits. */
    public static class Candidate {
        public Conversation conversation;
        /** Event time in milliseconds until which it waits. */
        public long until;

        public Candidate() {}

        Candidate(Conversation conversation, long until) {
            this.conversation = conversation;
            this.until = until;
        }
    }

    /** What goes on, and how many of them turned out to have several that fit. */
    record Due(List<Conversation> conversations, int ambiguous) {}

    public List<Candidate> waiting = new ArrayList<>();

    /** Takes one in; gives the one that has to go for it, else null. */
    Conversation add(Conversation c, long until) {
        waiting.add(new Candidate(c, until));
        return waiting.size() > WAITING ? waiting.remove(0).conversation : null;
    }

    /**
     * Those whose time is up, with the other side where there is exactly one, for which this is the only one too. Where several
     * fit, or nobody knows who began, all that are concerned stay by themselves from then on, and say so.
     */
    Due due(Match.Kind kind, long now, long tolerance) {
        List<Conversation> out = new ArrayList<>();
        int ambiguous = 0;
        for (Candidate c : List.copyOf(waiting)) {
            if (c.until > now || !waiting.contains(c)) {
                continue;
            }
            List<Candidate> others = fitting(kind, c, tolerance);
            Candidate other = others.size() == 1 ? others.get(0) : null;
            Sides sides = other != null && fitting(kind, other, tolerance).size() == 1
                            && !c.conversation.natAmbiguous && !other.conversation.natAmbiguous
                    ? Sides.of(kind, c.conversation, other.conversation) : null;
            if (sides != null) {
                waiting.remove(c);
                waiting.remove(other);
                out.add(Join.of(kind, sides));
                continue;
            }
            if (!others.isEmpty()) {
                ambiguous += said(c);
                for (Candidate o : others) {
                    ambiguous += said(o);
                }
            }
            waiting.remove(c);
            out.add(c.conversation);
        }
        return new Due(out, ambiguous);
    }

    /** 1 where it was not known before: one is counted once, however many stages it goes through. */
    private static int said(Candidate c) {
        int before = c.conversation.natAmbiguous ? 0 : 1;
        c.conversation.natAmbiguous = true;
        return before;
    }

    private List<Candidate> fitting(Match.Kind kind, Candidate of, long tolerance) {
        List<Candidate> fitting = waiting.stream()
                .filter(c -> c != of && Match.fits(kind, of.conversation, c.conversation, tolerance))
                .toList();
        if (fitting.size() < 2) {
            return fitting;
        }
        // Of what lasts long several parts may wait.
        List<Candidate> samePart = fitting.stream().filter(c -> Match.isSamePart(of.conversation, c.conversation)).toList();
        return samePart.isEmpty() ? fitting : samePart;
    }
}
