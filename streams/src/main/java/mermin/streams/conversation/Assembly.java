package mermin.streams.conversation;

import java.util.ArrayList;
import java.util.Collections;
import java.util.Comparator;
import java.util.List;
import java.util.Objects;
import java.util.function.Function;
import mermin.streams.record.Tuple;
import mermin.streams.record.Workload;

/** One conversation out of the observations of one group. */
final class Assembly {
    private Assembly() {}

    static Conversation of(String communityId, List<Observation> group, Conversation.Event event, int part) {
        Observation leader = leader(group);
        List<Observation> all = group.stream()
                .map(o -> o.tuple.equals(leader.tuple) ? o : o.reversed())
                .sorted(Comparator.comparingLong((Observation o) -> o.start).thenComparing(o -> o.flowId))
                .toList();
        List<Host> hosts = hosts(all);
        Observation first = all.get(0);
        Conversation c = new Conversation();
        c.id = all.stream().map(o -> o.conversation).filter(Objects::nonNull).min(Comparator.naturalOrder())
                .orElse(first.flowId);
        c.event = event;
        c.part = part;
        c.complete = all.stream().allMatch(o -> o.ended);
        c.communityIds.add(communityId);
        c.tuples.add(leader.tuple);
        c.doubt = leader.doubt;
        c.translatedFrom = said(all, o -> o.translatedFrom);
        c.translatedTo = said(all, o -> o.translatedTo);
        c.start = first.start;
        c.end = all.stream().mapToLong(o -> o.end).max().orElseThrow();
        HopOrder there = HopOrder.of(hosts, true);
        HopOrder back = HopOrder.of(hosts, false);
        c.forward = hops(there, true);
        c.reverse = hops(back, false);
        c.forwardBy = there.by;
        c.reverseBy = back.by;
        // Who an address is knows best whoever has it: the name of the host nearest to it that has more than the address.
        c.source = name(there.hosts, o -> o.source, false);
        c.destination = name(there.hosts, o -> o.destination, true);
        return c;
    }

    /** What the first says that says anything. */
    private static Tuple said(List<Observation> all, Function<Observation, Tuple> what) {
        return all.stream().map(what).filter(Objects::nonNull).findFirst().orElse(null);
    }

    /** Whoever knows best which end began. */
    private static Observation leader(List<Observation> group) {
        return group.stream()
                .min(Comparator.comparingInt((Observation o) -> o.doubt).thenComparingLong(o -> o.start).thenComparing(o -> o.flowId))
                .orElseThrow();
    }

    /**
     * Flows of one agent follow each other where it cut. Where they overlap it saw the same packets at two points and took them
     * for two flows, as a short connection's are where frames are read link by link: then it is on the way twice.
     */
    private static List<Host> hosts(List<Observation> all) {
        List<Host> hosts = new ArrayList<>();
        for (Observation o : all) {
            Host host = hosts.stream().filter(h -> h.goesOnWith(o)).findFirst().orElse(null);
            if (host == null) {
                host = new Host();
                hosts.add(host);
            }
            host.flows.add(o);
        }
        return hosts;
    }

    private static List<Hop> hops(HopOrder order, boolean forward) {
        List<Hop> hops = new ArrayList<>();
        order.hosts.forEach(host -> hops.addAll(host.hops(forward)));
        Loss.between(hops);
        return hops;
    }

    private static Workload name(
            List<Host> hosts, Function<Observation, Workload> of, boolean fromTheEnd) {
        List<Host> near = new ArrayList<>(hosts);
        if (fromTheEnd) {
            Collections.reverse(near);
        }
        Workload best = null;
        for (Host host : near) {
            for (Observation o : host.flows) {
                var name = of.apply(o);
                if (best == null || name.kind.ordinal() < best.kind.ordinal()) {
                    best = name;
                }
            }
        }
        return best;
    }
}
