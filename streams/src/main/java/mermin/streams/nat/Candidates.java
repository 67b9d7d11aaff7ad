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

    public List<Candidate> waiting = new ArrayList<>();

    /** Takes one in; gives the one that has to go for it, else null. */
    Conversation add(Conversation c, long until) {
        waiting.add(new Candidate(c, until));
        return waiting.size() > WAITING ? waiting.remove(0).conversation : null;
    }

    /**
     * Those whose time is up, with the other side where there is exactly one, for which this is the only one too. Where several
     * fit, all that are concerned stay by themselves from then on, and say so.
     */
    List<Conversation> due(Match.Kind kind, long now, long tolerance) {
        List<Conversation> out = new ArrayList<>();
        for (Candidate c : List.copyOf(waiting)) {
            if (c.until > now || !waiting.contains(c)) {
                continue;
            }
            List<Candidate> others = fitting(kind, c, tolerance);
            Candidate other = others.size() == 1 ? others.get(0) : null;
            if (other != null && fitting(kind, other, tolerance).size() == 1
                    && !c.conversation.natAmbiguous && !other.conversation.natAmbiguous) {
                waiting.remove(c);
                waiting.remove(other);
                out.add(Join.of(kind, c.conversation, other.conversation));
                continue;
            }
            if (!others.isEmpty()) {
                c.conversation.natAmbiguous = true;
                others.forEach(o -> o.conversation.natAmbiguous = true);
            }
            waiting.remove(c);
            out.add(c.conversation);
        }
        return out;
    }

    private List<Candidate> fitting(Match.Kind kind, Candidate of, long tolerance) {
        return waiting.stream()
                .filter(c -> c != of && Match.fits(kind, of.conversation, c.conversation, tolerance))
                .toList();
    }
}
