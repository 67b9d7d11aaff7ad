package mermin.streams.nat;

import static mermin.streams.nat.Sided.TOLERANCE;
import static mermin.streams.nat.Sided.conversation;
import static mermin.streams.nat.Sided.due;
import static mermin.streams.nat.Sided.hop;
import static mermin.streams.nat.Sided.tuple;
import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.ArrayList;
import java.util.List;
import mermin.streams.conversation.Conversation;
import mermin.streams.record.Tuple;
import org.junit.jupiter.api.Test;

/** What time and size tell. */
class NatTest {
    @Test
    void destinationNatAtANodeThatSawBoth() {
        Conversation asked = conversation("a", tuple("10.0.0.1", 4000, "10.96.0.1"), hop("client", 10, 64, 0), hop("router", 10, 64, 1000));
        Conversation answered =
                conversation("b", tuple("10.0.0.1", 4000, "10.2.0.9"), hop("router", 10, 63, 2000), hop("server", 8, 63, 3000));
        List<Conversation> out = due(Match.Kind.DESTINATION, answered, asked);
        assertEquals(1, out.size());
        Conversation c = out.get(0);
        assertEquals("a", c.id);
        assertEquals(List.of("10.96.0.1", "10.2.0.9"), c.tuples.stream().map(t -> t.destinationAddress).toList());
        assertEquals(List.of("client 0", "router 0", "router 1", "server 1"), c.forward.stream().map(h -> h.node + " " + h.tuple).toList());
        assertEquals(List.of("server 1", "router 1", "router 0", "client 0"), c.reverse.stream().map(h -> h.node + " " + h.tuple).toList());
        assertEquals(List.of(0L, 0L, 2L), c.forward.stream().skip(1).map(h -> h.lost).toList());
        assertEquals(List.of("destination", "time and size at one node"), List.of(c.natKind, c.natMatchedBy));
        assertEquals(List.of(10L, 8L), List.of(c.counts(true).packets, c.counts(false).packets));
    }

    @Test
    void aLittleMayBeLostWhereNobodyLooks() {
        Tuple asked = tuple("10.0.0.1", 4000, "10.96.0.1");
        Tuple answered = tuple("10.0.0.1", 4000, "10.2.0.9");
        for (long packets : new long[] {98, 97}) {
            List<Conversation> out = due(Match.Kind.DESTINATION,
                    conversation("a", asked, hop("client", 100, 64, 0)), conversation("b", answered, hop("server", packets, 62, 1000)));
            assertEquals(packets == 98 ? 1 : 2, out.size(), packets + " of 100");
        }
        List<Conversation> up = due(Match.Kind.DESTINATION,
                conversation("a", asked, hop("client", 100, 62, 0)), conversation("b", answered, hop("server", 100, 64, 0)));
        // Who has the greater TTL is the first, whichever came first.
        assertEquals(List.of("b"), up.stream().map(c -> c.id).toList());
    }

    @Test
    void sourceNatNeedsEqualSizes() {
        Tuple inside = tuple("10.0.0.1", 4000, "1.1.1.1");
        Tuple outside = tuple("192.0.2.1", 60000, "1.1.1.1");
        assertEquals(1, due(Match.Kind.SOURCE,
                conversation("a", inside, hop("gate", 10, 64, 0)), conversation("b", outside, hop("gate", 10, 63, 1000))).size());
        assertEquals(2, due(Match.Kind.SOURCE,
                conversation("a", inside, hop("gate", 10, 64, 0)), conversation("b", outside, hop("gate", 9, 63, 1000))).size());
        // One clock tells them apart where one node saw both; two may differ by a second.
        assertEquals(2, due(Match.Kind.SOURCE,
                conversation("a", inside, hop("gate", 10, 64, 0)), conversation("b", outside, hop("gate", 10, 63, TOLERANCE / 2))).size());
        assertEquals(1, due(Match.Kind.SOURCE,
                conversation("a", inside, hop("host", 10, 64, 0)), conversation("b", outside, hop("peer", 10, 63, TOLERANCE / 2))).size());
        // At one node more than one router lies between these.
        assertEquals(2, due(Match.Kind.SOURCE,
                conversation("a", inside, hop("gate", 10, 64, 0)), conversation("b", outside, hop("gate", 10, 60, 1000))).size());
    }

    @Test
    void ofSeveralNoneIsTakenAndItIsSaid() {
        Tuple outside = tuple("192.0.2.1", 60000, "1.1.1.1");
        List<Conversation> out = due(Match.Kind.SOURCE,
                conversation("a", tuple("10.0.0.1", 4000, "1.1.1.1"), hop("gate", 10, 64, 0)),
                conversation("b", tuple("10.0.0.2", 4000, "1.1.1.1"), hop("gate", 10, 64, 0)),
                conversation("c", outside, hop("gate", 10, 63, 1000)));
        assertEquals(3, out.size());
        assertEquals(List.of(true, true, true), out.stream().map(c -> c.natAmbiguous).toList());
    }

    @Test
    void whatGoesToAGroupOrHasNoPortsIsNotRewritten() {
        for (String group : new String[] {"224.0.0.251", "239.255.255.250", "255.255.255.255", "ff02::fb"}) {
            assertEquals(false, tuple("10.0.0.1", 4000, group).isOfTwoPorts(), group);
        }
        assertEquals(true, tuple("10.0.0.1", 4000, "223.0.0.1").isOfTwoPorts());
        assertEquals(true, tuple("10.0.0.1", 4000, "fd00::1").isOfTwoPorts());
        Tuple ping = tuple("10.0.0.1", 4000, "10.0.0.2");
        ping.sourcePort = null;
        assertEquals(false, ping.isOfTwoPorts());
    }

    @Test
    void bothOnTheWayAreThreeTuples() {
        Conversation asked = conversation("a", tuple("10.0.0.1", 4000, "10.96.0.1"), hop("node", 10, 64, 0));
        Conversation chosen = conversation("b", tuple("10.0.0.1", 4000, "10.2.0.9"), hop("node", 10, 63, 1000), hop("gate", 10, 63, 2000));
        Conversation hidden = conversation("c", tuple("192.0.2.1", 60000, "10.2.0.9"), hop("gate", 10, 62, 3000));
        Conversation first = due(Match.Kind.DESTINATION, asked, chosen).get(0);
        List<Conversation> out = due(Match.Kind.SOURCE, first, hidden);
        assertEquals(1, out.size());
        assertEquals(List.of(0, 1, 1, 2), out.get(0).forward.stream().map(h -> h.tuple).toList());
        assertEquals("destination, source", out.get(0).natKind);
    }

    @Test
    void whoSaysWhatItBecomesIsJoinedWithNothingElse() {
        Conversation asked = conversation("a", tuple("10.0.0.1", 4000, "10.96.0.1"), hop("router", 10, 64, 0));
        Conversation like = conversation("b", tuple("10.0.0.1", 4000, "10.2.0.9"), hop("router", 10, 63, 1000));
        assertEquals(1, due(Match.Kind.DESTINATION, asked, like).size());
        asked.translatedTo = tuple("10.0.0.1", 4000, "10.2.0.8");
        assertEquals(2, due(Match.Kind.DESTINATION, asked, like).size());
        asked.translatedTo = null;
        like.translatedFrom = tuple("10.0.0.1", 4000, "10.96.0.2");
        assertEquals(2, due(Match.Kind.DESTINATION, asked, like).size());
    }

    @Test
    void whatWaitsIsBounded() {
        Candidates candidates = new Candidates();
        List<String> out = new ArrayList<>();
        for (int i = 0; i < Candidates.WAITING + 2; i++) {
            Conversation gone = candidates.add(conversation("" + i, tuple("10.0.0.1", i, "1.1.1.1"), hop("gate", i, 64, 0)), 100);
            if (gone != null) {
                out.add(gone.id);
            }
        }
        assertEquals(List.of("0", "1"), out);
    }
}
