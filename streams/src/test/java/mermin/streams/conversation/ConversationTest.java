package mermin.streams.conversation;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;

import java.util.ArrayList;
import java.util.List;
import mermin.streams.record.Counts;
import mermin.streams.record.Event;
import mermin.streams.record.FlowRecord;
import mermin.streams.record.Flows;
import mermin.streams.record.Point;
import mermin.streams.record.Tuple;
import org.junit.jupiter.api.Test;

class ConversationTest {
    private static final long TOLERANCE = 1_000_000_000L;
    private static final Patience PATIENCE = new Patience(90_000, 300_000, 3_600_000, 900_000, 1_000);

    private static Observation seen(String node, long from, long to, long packets, long answers, int ttl) {
        Flows flow = new Flows(node + from, node, from);
        flow.ttl = ttl;
        flow.reverseTtl = 128 - ttl;
        Observation o = new Observation();
        o.take(flow.next(Event.END, to, packets, answers));
        return o;
    }

    private static List<List<String>> groups(Observation... all) {
        return Grouping.of(List.of(all), TOLERANCE).stream().map(group -> group.stream().map(o -> o.flowId).toList()).toList();
    }

    private static List<String> nodes(List<Hop> hops) {
        return hops.stream().map(hop -> hop.node).toList();
    }

    private static Conversation joined(Observation... all) {
        return Assembly.of("1:x", List.of(all), Conversation.Event.END, 0);
    }

    @Test
    void flowsThatOverlapAreOneConversation() {
        assertEquals(List.of(List.of("a0", "b1", "a30000")),
                groups(seen("a", 0, 20_000, 1, 1, 64), seen("b", 1, 60_000, 1, 1, 63), seen("a", 30_000, 60_000, 1, 1, 64)));
    }

    @Test
    void aPortThatIsUsedAgainAtOnceIsAnother() {
        assertEquals(List.of(List.of("a0", "b1"), List.of("a400", "b401")),
                groups(seen("a", 0, 300, 1, 1, 64), seen("b", 1, 301, 1, 1, 63), seen("a", 400, 700, 1, 1, 64), seen("b", 401, 701, 1, 1, 63)));
        // One agent missed the first: it is nobody else's.
        assertEquals(List.of(List.of("a0"), List.of("a400", "b401")),
                groups(seen("a", 0, 300, 1, 1, 64), seen("a", 400, 700, 1, 1, 64), seen("b", 401, 701, 1, 1, 63)));
    }

    @Test
    void flowsOneAfterTheOtherAreTwo() {
        assertEquals(List.of(List.of("a0", "b0"), List.of("a40000", "b40000")),
                groups(seen("a", 0, 0, 1, 0, 64), seen("b", 0, 0, 1, 0, 63), seen("a", 40_000, 40_000, 1, 0, 64), seen("b", 40_000, 40_000, 1, 0, 63)));
    }

    @Test
    void hopsAreInTheOrderOfTtlsAndSayWhereItWasLost() {
        Conversation c = joined(seen("c", 2, 5000, 7, 9, 62), seen("a", 0, 5000, 10, 8, 64), seen("b", 1, 5000, 10, 9, 63));
        assertEquals(List.of("a", "b", "c"), nodes(c.forward));
        assertEquals(List.of("c", "b", "a"), nodes(c.reverse));
        assertEquals(HopOrder.By.TTL, c.forwardBy);
        assertNull(c.forward.get(0).lost);
        assertEquals(List.of(0L, 3L), c.forward.stream().skip(1).map(hop -> hop.lost).toList());
        assertEquals(List.of(0L, 1L), c.reverse.stream().skip(1).map(hop -> hop.lost).toList());
        assertEquals(300L, c.forward.get(2).lostBytes);
        // Each packet once: of the first hop in each direction.
        assertEquals(List.of(10L, 9L), List.of(c.counts(true).packets, c.counts(false).packets));
    }

    @Test
    void whatLeavesAHostComesToTheNextAsItWas() {
        Observation router = seen("r", 9, 5000, 1, 0, 64);
        router.hook = "egress";
        Conversation c = joined(seen("a", 0, 5000, 1, 0, 64), router);
        assertEquals(List.of("r", "a"), nodes(c.forward));
        assertEquals(HopOrder.By.HOOK, c.forwardBy);
    }

    @Test
    void withEqualTtlsTheEndsDecideThenTime() {
        Observation client = seen("z", 5, 5000, 1, 1, 64);
        client.role = "outbound";
        Conversation c = joined(seen("a", 0, 5000, 1, 1, 64), client);
        assertEquals(List.of("z", "a"), nodes(c.forward));
        assertEquals(HopOrder.By.DIRECTION, c.forwardBy);
        Conversation by = joined(seen("b", 0, 5000, 1, 1, 64), seen("a", 1, 5000, 1, 1, 64));
        assertEquals(List.of("b", "a"), nodes(by.forward));
        assertEquals(List.of("a", "b"), nodes(by.reverse));
        assertEquals(HopOrder.By.TIME, by.forwardBy);
        assertEquals(HopOrder.By.SINGLE, joined(seen("b", 0, 5000, 1, 1, 64)).forwardBy);
    }

    @Test
    void whoSawTheSynSaysWhoBegan() {
        Observation sure = seen("a", 0, 5000, 10, 8, 64);
        Observation wrong = seen("b", 1, 5000, 8, 10, 60);
        wrong.tuple = sure.tuple.reversed();
        wrong.doubt = 5;
        wrong.forward.ttl = 68;
        wrong.reverse.ttl = 63;
        Conversation c = joined(wrong, sure);
        assertEquals(sure.tuple, c.first());
        assertEquals(List.of(10L, 10L), c.forward.stream().map(hop -> hop.counts.packets).toList());
        assertEquals(List.of("b", "a"), nodes(c.reverse));
    }

    @Test
    void pointsOfAHostAreHopsAndSharedDirectionsOne() {
        Observation o = new Observation();
        Flows flow = new Flows("f", "n", 0);
        // The first record knew one point only.
        o.take(flow.next(Event.UPDATE, 1000, 4, 0));
        FlowRecord r = flow.next(Event.END, 2000, 6, 0);
        r.forward.hops.add(new Point("veth1", "ingress", true, new Counts(6, 600, 684)));
        r.forward.hops.add(new Point("eth0", "egress", false, new Counts(9, 900, 1026)));
        o.take(r);
        Conversation c = joined(o);
        assertEquals(List.of(10L, 9L), c.forward.stream().map(hop -> hop.counts.packets).toList());
        assertEquals(1L, c.forward.get(1).lost);

        FlowRecord shared = new Flows("g", "n", 0).next(Event.END, 2000, 10, 0);
        shared.forward.hops.add(new Point("eth0", "ingress", true, new Counts(6, 600, 684)));
        shared.forward.hops.add(new Point("eth1", "ingress", true, new Counts(4, 400, 456)));
        shared.forward.hops.add(new Point("veth1", "egress", false, new Counts(8, 800, 912)));
        Observation two = new Observation();
        two.take(shared);
        Conversation both = joined(two);
        assertEquals(10, both.counts(true).packets);
        assertNull(both.forward.get(1).lost);
        assertEquals(2L, both.forward.get(2).lost);
    }

    @Test
    void flowsOfOneAgentFollowEachOtherOrAreOfTwoPoints() {
        Conversation cut = joined(seen("a", 0, 9000, 10, 5, 64), seen("b", 0, 4000, 6, 3, 63), seen("b", 5000, 9000, 4, 2, 63));
        assertEquals(List.of(10L, 10L), cut.forward.stream().map(hop -> hop.counts.packets).toList());
        Conversation twice = joined(seen("a", 0, 9000, 10, 5, 64), seen("b", 1, 9000, 8, 5, 62), seen("b", 0, 9000, 10, 5, 63));
        assertEquals(List.of("a", "b", "b"), nodes(twice.forward));
        assertEquals(List.of(0L, 2L), twice.forward.stream().skip(1).map(hop -> hop.lost).toList());
        assertEquals(10, twice.counts(true).packets);
    }

    @Test
    void sampledHostsAreComparedByTheirEstimates() {
        Observation sampled = new Observation();
        FlowRecord r = new Flows("s", "b", 1).next(Event.END, 5000, 25, 0);
        r.forward.ttl = 63;
        r.forward.estimate = new Counts(98, 9800, 11172);
        sampled.take(r);
        Conversation c = joined(seen("a", 0, 5000, 100, 0, 64), sampled);
        assertEquals(2L, c.forward.get(1).lost);
        assertEquals(25, c.forward.get(1).counts.packets);
        assertEquals(100, c.counts(true).packets);
        Conversation alone = joined(sampled);
        assertEquals(List.of(25L, 98L), List.of(alone.counts(true).packets, alone.estimate(true).packets));
    }

    /** What is asked for never comes later than what is due. */
    private static void take(Pending pending, FlowRecord r) {
        long ask = pending.take(r, PATIENCE);
        assertEquals(true, Math.min(ask, pending.timer) <= pending.nextDue(PATIENCE));
        pending.timer = Math.min(ask, pending.timer);
    }

    private static List<Conversation> at(Pending pending, long now) {
        List<Conversation> due = pending.due("1:x", now, PATIENCE);
        pending.timer = pending.nextDue(PATIENCE);
        return due;
    }

    @Test
    void aConversationWaitsForOthersAndIsReleasedOnce() {
        Pending pending = new Pending();
        take(pending, new Flows("a", "a", 0).next(Event.END, 5000, 10, 8));
        assertEquals(95_000, pending.nextDue(PATIENCE));
        take(pending, new Flows("b", "b", 1).next(Event.UPDATE, 4000, 9, 8));
        // One goes on: it may be silent for five minutes.
        assertEquals(305_000, pending.nextDue(PATIENCE));
        assertEquals(List.of(), at(pending, 304_999));
        List<Conversation> out = at(pending, 305_000);
        assertEquals(1, out.size());
        assertEquals(false, out.get(0).complete);
        assertEquals(2, out.get(0).forward.size());
        assertEquals(List.of(), at(pending, 306_000));
        at(pending, 305_000 + 900_000);
        assertEquals(true, pending.isEmpty());
    }

    @Test
    void whoComesLateIsSaidToBeLateAndAddsNoPackets() {
        Pending pending = new Pending();
        take(pending, new Flows("a", "a", 0).next(Event.END, 5000, 10, 8));
        String id = at(pending, 95_000).get(0).id;
        FlowRecord late = new Flows("b", "b", 1).next(Event.END, 5000, 9, 8);
        late.countedAt = 200_000;
        take(pending, late);
        Conversation c = at(pending, 290_000).get(0);
        assertEquals(Conversation.Event.LATE, c.event);
        assertEquals(id, c.id);
        assertEquals(0, c.counts(true).packets);
        assertEquals(9, c.forward.get(0).counts.packets);
        // The port used again, 40 s later, is no view of it.
        take(pending, new Flows("c", "a", 300_000).next(Event.END, 301_000, 1, 1));
        assertEquals(Conversation.Event.END, at(pending, 400_000).get(0).event);
    }

    @Test
    void whatLastsLongIsReleasedInParts() {
        Pending pending = new Pending();
        Flows flow = new Flows("a", "a", 0);
        List<Conversation> parts = new ArrayList<>();
        for (int minute = 0; minute < 150; minute++) {
            FlowRecord r = flow.next(minute == 149 ? Event.END : Event.UPDATE, minute * 60_000L, 10, 1);
            take(pending, r);
            parts.addAll(at(pending, minute * 60_000L));
        }
        parts.addAll(at(pending, 160 * 60_000L));
        assertEquals(List.of(Conversation.Event.PART, Conversation.Event.PART, Conversation.Event.END),
                parts.stream().map(c -> c.event).toList());
        assertEquals(List.of(0, 1, 2), parts.stream().map(c -> c.part).toList());
        assertEquals(1, parts.stream().map(c -> c.id).distinct().count());
        assertEquals(1500, parts.stream().mapToLong(c -> c.counts(true).packets).sum());
    }

    @Test
    void aReportThatComesAfterItsPartIsNotCountedAgain() {
        Pending pending = new Pending();
        Flows flow = new Flows("a", "a", 0);
        take(pending, flow.next(Event.UPDATE, 60_000, 10, 1));
        FlowRecord between = flow.next(Event.UPDATE, 120_000, 20, 1);
        FlowRecord later = flow.next(Event.UPDATE, 3_660_000, 40, 1);
        take(pending, later);
        // Totals tell of the report that is missing.
        assertEquals(70, at(pending, 3_660_000).get(0).counts(true).packets);
        take(pending, between);
        take(pending, flow.next(Event.END, 3_670_000, 5, 1));
        assertEquals(5, at(pending, 4_000_000).get(0).counts(true).packets);
    }

    @Test
    void aFlowThatIsHeardOfAgainGoesOnWithItsConversation() {
        Pending pending = new Pending();
        Flows flow = new Flows("a", "a", 0);
        take(pending, flow.next(Event.UPDATE, 1000, 10, 1));
        Conversation first = at(pending, 301_000).get(0);
        FlowRecord more = flow.next(Event.END, 400_000, 5, 1);
        take(pending, more);
        Conversation second = at(pending, 500_000).get(0);
        assertEquals(first.id, second.id);
        assertEquals(1, second.part);
        assertEquals(List.of(10L, 5L), List.of(first.counts(true).packets, second.counts(true).packets));
    }

    /** Its packets were told by the totals of those around it. */
    @Test
    void aReportThatComesAfterTheEndIsNotCountedAgain() {
        for (boolean reversed : new boolean[] {false, true}) {
            Pending pending = new Pending();
            Flows flow = new Flows("a", "a", 0);
            FlowRecord first = flow.next(Event.UPDATE, 1000, reversed ? 1 : 7, reversed ? 7 : 1);
            FlowRecord second = flow.next(Event.UPDATE, 2000, reversed ? 1 : 10, reversed ? 10 : 1);
            FlowRecord middle = flow.next(Event.UPDATE, 3000, reversed ? 1 : 20, reversed ? 20 : 1);
            FlowRecord end = flow.next(Event.END, 4000, reversed ? 1 : 40, reversed ? 40 : 1);
            take(pending, second);
            take(pending, end);
            Conversation released = at(pending, 94_000).get(0);
            assertEquals(70, released.counts(!reversed).packets);
            middle.countedAt = 200_000;
            take(pending, middle);
            // It had ended, so it doesn't wait for another end.
            Conversation nothing = at(pending, 290_000).get(0);
            assertEquals(List.of(0L, 0L), List.of(nothing.counts(true).packets, nothing.counts(false).packets));
            // What was before the first that came was told by none.
            first.countedAt = 300_000;
            take(pending, first);
            Conversation rest = at(pending, 390_000).get(0);
            assertEquals(7, rest.counts(!reversed).packets);
            assertEquals(List.of(released.id, 2, Conversation.Event.END), List.of(rest.id, rest.part, rest.event));
            assertEquals(0, pending.flows.size());
        }
    }

    @Test
    void whatFollowsALateViewIsLateToo() {
        Pending pending = new Pending();
        take(pending, new Flows("a", "a", 0).next(Event.END, 5000, 10, 8));
        at(pending, 95_000);
        Flows late = new Flows("b", "b", 1);
        FlowRecord update = late.next(Event.UPDATE, 4000, 5, 5);
        update.countedAt = 200_000;
        take(pending, update);
        assertEquals(Conversation.Event.LATE, at(pending, 500_000).get(0).event);
        FlowRecord end = late.next(Event.END, 5000, 5, 3);
        end.countedAt = 600_000;
        take(pending, end);
        Conversation again = at(pending, 690_000).get(0);
        assertEquals(List.of(Conversation.Event.LATE, 0L), List.of(again.event, again.counts(true).packets));
        assertEquals(5, again.forward.get(0).counts.packets);
    }

    /** What is before the first report of a part that was told is told with the next one. */
    @Test
    void theFirstReportMayComeAfterItsPart() {
        Pending pending = new Pending();
        Flows flow = new Flows("a", "a", 0);
        FlowRecord first = flow.next(Event.UPDATE, 60_000, 10, 1);
        take(pending, flow.next(Event.UPDATE, 120_000, 20, 1));
        take(pending, flow.next(Event.UPDATE, 3_700_000, 4, 1));
        Conversation part = at(pending, 3_720_000).get(0);
        assertEquals(List.of(Conversation.Event.PART, 24L), List.of(part.event, part.counts(true).packets));
        take(pending, first);
        take(pending, flow.next(Event.END, 3_730_000, 5, 1));
        assertEquals(15, at(pending, 4_000_000).get(0).counts(true).packets);
    }

    @Test
    void whatIsTurnedGoesFromTheFirstTupleToTheLast() {
        Conversation c = joined(seen("a", 0, 5000, 10, 8, 64), seen("b", 1, 5000, 9, 9, 63));
        c.forward.get(1).tuple = 1;
        c.reverse.get(0).tuple = 1;
        Tuple other = c.first();
        c.tuples.add(other);
        Conversation turned = c.turned();
        assertEquals(List.of(other.reversed(), other.reversed()), turned.tuples);
        assertEquals(List.of("a", "b"), nodes(turned.forward));
        assertEquals(List.of("b", "a"), nodes(turned.reverse));
        assertEquals(List.of(8L, 9L), List.of(turned.counts(true).packets, turned.counts(false).packets));
        assertEquals(-1L, turned.forward.get(1).lost);
        assertEquals(c.source, turned.destination);
    }

    @Test
    void whatWaitsIsBounded() {
        Pending pending = new Pending();
        for (int i = 0; i < Pending.FLOWS; i++) {
            take(pending, new Flows("f" + i, "a", i * 10_000L).next(Event.END, i * 10_000L + 1, 1, 0));
        }
        assertEquals(true, pending.isFull());
        assertEquals(Pending.FLOWS, pending.force("1:x", 0, PATIENCE).size());
        assertEquals(0, pending.flows.size());
        assertEquals(Pending.RELEASED, pending.released.size());
    }
}
