package mermin.streams.nat;

import static mermin.streams.nat.Sided.TOLERANCE;
import static mermin.streams.nat.Sided.conversation;
import static mermin.streams.nat.Sided.due;
import static mermin.streams.nat.Sided.hop;
import static mermin.streams.nat.Sided.said;
import static mermin.streams.nat.Sided.tuple;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;

import java.util.ArrayList;
import java.util.List;
import mermin.streams.conversation.Conversation;
import org.junit.jupiter.api.Test;

/** What hosts say of their own translations, and who began. */
class SaidTest {
    /** What hosts say of two sides: the one before, the one behind, or both. */
    private static void translates(Conversation first, Conversation second, String who) {
        first.translatedTo = who.equals("behind") ? null : second.first();
        second.translatedFrom = who.equals("before") ? null : first.last();
    }

    @Test
    void oneSidesWordNeedsNoEqualSizesAndNoCommonEnd() {
        for (String who : List.of("before", "behind", "both")) {
            Conversation inside = conversation("a", tuple("10.0.0.1", 4000, "10.96.0.1"), hop("client", 100, 64, 0), hop("gate", 100, 64, 10));
            Conversation outside = conversation("b", tuple("192.0.2.1", 60000, "10.2.0.9"), hop("gate", 50, 64, 20), hop("server", 50, 63, 30));
            Conversation other = conversation("c", tuple("192.0.2.1", 60001, "10.2.0.9"), hop("gate", 100, 63, 20));
            translates(inside, outside, who);
            List<Conversation> out = said(outside, other, inside);
            assertEquals(List.of("a", "c"), out.stream().map(c -> c.id).sorted().toList(), who);
            Conversation joined = out.stream().filter(c -> c.id.equals("a")).findFirst().orElseThrow();
            assertEquals(List.of("source and destination", "conntrack"), List.of(joined.natKind, joined.natMatchedBy));
            assertEquals(List.of(0L, 50L, 0L), joined.forward.stream().skip(1).map(h -> h.lost).toList());
        }
    }

    @Test
    void nobodyIsJoinedAgainstTheOthersWord() {
        Conversation inside = conversation("a", tuple("10.0.0.1", 4000, "10.96.0.1"), hop("gate", 10, 64, 0));
        Conversation outside = conversation("b", tuple("10.0.0.1", 4000, "10.2.0.9"), hop("gate", 10, 63, 0));
        inside.translatedTo = outside.first();
        outside.translatedFrom = tuple("10.0.0.1", 4000, "10.96.0.2");
        assertEquals(2, said(inside, outside).size());
    }

    @Test
    void saidSidesMayBeginApartAndBeCutButLiveAtOneTime() {
        Conversation inside = conversation("a", tuple("10.0.0.1", 4000, "10.96.0.1"), hop("client", 100, 64, 0));
        Conversation outside = conversation("b", tuple("10.0.0.1", 4000, "10.2.0.9"), hop("server", 50, 62, 5 * TOLERANCE));
        translates(inside, outside, "before");
        outside.complete = false;
        List<Conversation> out = said(inside, outside);
        assertEquals(List.of("a"), out.stream().map(c -> c.id).toList());
        assertEquals(false, out.get(0).complete);
        assertEquals(50L, out.get(0).forward.get(1).lost);

        // Since another part, so there is no saying what was lost between them.
        outside = conversation("b", tuple("10.0.0.1", 4000, "10.2.0.9"), hop("server", 50, 62, 5 * TOLERANCE));
        outside.part = 1;
        out = said(inside, outside);
        assertEquals(1, out.size());
        assertNull(out.get(0).forward.get(1).lost);

        Conversation later = conversation("b", tuple("10.0.0.1", 4000, "10.2.0.9"), hop("server", 50, 62, 12 * TOLERANCE));
        assertEquals(2, said(inside, later).size());
        // The host that saw both has one clock: half a second apart is not at one time.
        Conversation here = conversation("a", tuple("10.0.0.1", 4000, "10.96.0.1"), hop("gate", 100, 64, 0));
        here.translatedTo = later.first();
        long apart = 10 * TOLERANCE + TOLERANCE / 2;
        assertEquals(2, said(here, conversation("b", later.first(), hop("gate", 100, 63, apart))).size());
        assertEquals(1, said(here, conversation("b", later.first(), hop("else", 100, 63, apart))).size());
    }

    @Test
    void ofSeveralPartsTheEqualOnesAreTaken() {
        List<Conversation> all = new ArrayList<>();
        for (int part = 0; part < 3; part++) {
            Conversation inside = conversation("a", tuple("10.0.0.1", 4000, "10.96.0.1"), hop("gate", part + 1, 64, 0));
            Conversation outside = conversation("b", tuple("10.0.0.1", 4000, "10.2.0.9"), hop("gate", part + 1, 63, 0));
            translates(inside, outside, "behind");
            for (Conversation c : List.of(inside, outside)) {
                c.part = part;
                c.event = part < 2 ? Conversation.Event.PART : Conversation.Event.END;
                all.add(c);
            }
        }
        List<Conversation> out = said(all.toArray(Conversation[]::new));
        assertEquals(List.of(0, 1, 2), out.stream().map(c -> c.part).toList());
        assertEquals(List.of(0L, 0L, 0L), out.stream().map(c -> c.forward.get(1).lost).toList());
        // Where the tuple is used again at once nobody knows whose the other side is, and each is told once.
        Candidates candidates = new Candidates();
        Conversation one = conversation("a", all.get(0).first(), hop("gate", 1, 64, 0));
        Conversation two = conversation("b", all.get(0).first(), hop("gate", 1, 64, 0));
        candidates.add(one, 100);
        candidates.add(two, 100);
        candidates.add(all.get(5), 100);
        Candidates.Due due = candidates.due(Match.Kind.SAID_BEFORE, 100, TOLERANCE);
        assertEquals(List.of(3, 3), List.of(due.conversations().size(), due.ambiguous()));
        due.conversations().forEach(c -> candidates.add(c, 200));
        assertEquals(0, candidates.due(Match.Kind.SAID_BEFORE, 200, TOLERANCE).ambiguous());
    }

    /** An agent that saw no SYN takes the server's end for the source. */
    private static Conversation turned(Conversation c, int doubt) {
        Conversation turned = c.turned();
        turned.doubt = doubt;
        return turned;
    }

    private static Conversation before(int doubt) {
        Conversation c = conversation("a", tuple("10.0.0.1", 4000, "10.96.0.1"), hop("client", 10, 64, 0), hop("gate", 10, 64, 10));
        c.translatedTo = tuple("192.0.2.1", 60000, "10.2.0.9");
        c.doubt = doubt;
        return c;
    }

    private static Conversation behind(int doubt, int ttl) {
        Conversation c = conversation("b", tuple("192.0.2.1", 60000, "10.2.0.9"), hop("gate", 10, ttl, 20), hop("server", 9, ttl, 30));
        c.translatedFrom = tuple("10.0.0.1", 4000, "10.96.0.1");
        c.doubt = doubt;
        return c;
    }

    @Test
    void whoeverSawTheSynSaysWhoBeganOnBothSides() {
        for (int wrong = 0; wrong < 3; wrong++) {
            for (String silent : List.of("none", "first", "second")) {
                // Neither, the side behind, the side before took the other end for the source; TTLs say nothing.
                Conversation first = wrong == 2 ? turned(before(0), 5) : before(0);
                Conversation second = wrong == 1 ? turned(behind(0, 64), 5) : behind(0, 64);
                if (silent.equals("first")) {
                    first.translatedTo = null;
                }
                if (silent.equals("second")) {
                    second.translatedFrom = null;
                }
                List<Conversation> out = said(second, first);
                assertEquals(1, out.size(), wrong + " " + silent);
                isRight(out.get(0));
            }
        }
    }

    @Test
    void whereNobodySawItTtlsSayWhoBegan() {
        isRight(said(turned(before(5), 5), turned(behind(5, 63), 5)).get(0));
        isRight(said(before(5), turned(behind(5, 63), 5)).get(0));
        isRight(said(turned(before(5), 4), behind(5, 63)).get(0));
        // A SYN is surer than any TTL.
        isRight(said(before(0), behind(0, 70)).get(0));
        // The better guess, where they say nothing.
        isRight(said(before(4), turned(behind(5, 64), 5)).get(0));
    }

    @Test
    void whereNothingSaysWhoBeganItIsAmbiguous() {
        List<Conversation> out = said(before(5), turned(behind(5, 64), 5));
        assertEquals(List.of(true, true), out.stream().map(c -> c.natAmbiguous).toList());
    }

    private static void isRight(Conversation c) {
        assertEquals(List.of("10.0.0.1", "192.0.2.1"), c.tuples.stream().map(t -> t.sourceAddress).toList());
        assertEquals(List.of("10.96.0.1", "10.2.0.9"), c.tuples.stream().map(t -> t.destinationAddress).toList());
        assertEquals(List.of("client 0", "gate 0", "gate 1", "server 1"), c.forward.stream().map(h -> h.node + " " + h.tuple).toList());
        assertEquals(List.of("server 1", "gate 1", "gate 0", "client 0"), c.reverse.stream().map(h -> h.node + " " + h.tuple).toList());
        assertEquals(List.of(0L, 0L, 1L), c.forward.stream().skip(1).map(h -> h.lost).toList());
        assertEquals(List.of(10L, 9L), List.of(c.counts(true).packets, c.counts(false).packets));
        assertEquals("source and destination", c.natKind);
    }

    /** The middle tuple has both as neighbours: it comes to the one at the first stage, to the other at the second. */
    @Test
    void whatTwoHostsTranslateComesTogetherInTwoStages() {
        for (List<String> who : List.of(
                List.of("both", "both"), List.of("before", "behind"), List.of("behind", "before"), List.of("both", "before"),
                List.of("both", "behind"), List.of("behind", "both"))) {
            for (int wrong = 0; wrong < 4; wrong++) {
                Conversation first = conversation("a", tuple("10.0.0.1", 4000, "10.96.0.1"), hop("one", 10, 64, 0));
                Conversation middle = conversation("b", tuple("10.0.0.1", 4000, "10.2.0.9"), hop("one", 10, 63, 10), hop("two", 10, 63, 20));
                Conversation last = conversation("c", tuple("192.0.2.1", 60000, "10.2.0.9"), hop("two", 10, 62, 30));
                translates(first, middle, who.get(0));
                translates(middle, last, who.get(1));
                List<Conversation> out = said(wrong == 1 ? turned(first, 5) : first, wrong == 2 ? turned(middle, 5) : middle,
                        wrong == 3 ? turned(last, 5) : last);
                assertEquals(1, out.size(), who + " " + wrong);
                Conversation all = out.get(0);
                assertEquals(List.of("one 0", "one 1", "two 1", "two 2"), all.forward.stream().map(h -> h.node + " " + h.tuple).toList());
                assertEquals(List.of("two 2", "two 1", "one 1", "one 0"), all.reverse.stream().map(h -> h.node + " " + h.tuple).toList());
                assertEquals(List.of("destination, source", "conntrack, conntrack"), List.of(all.natKind, all.natMatchedBy));
            }
        }
    }
}
