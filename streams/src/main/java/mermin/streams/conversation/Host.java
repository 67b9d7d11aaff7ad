package mermin.streams.conversation;

import java.util.ArrayList;
import java.util.List;
import mermin.streams.record.Counts;
import mermin.streams.record.Point;

/** What one agent saw of a conversation: one flow, or several where it cut and others went on. */
final class Host {
    final List<Observation> flows = new ArrayList<>();

    /** Whether it is of the same agent, and begins where what is here has ended. */
    boolean goesOnWith(Observation o) {
        return Grouping.isSameAgent(first(), o) && flows.stream().allMatch(flow -> Grouping.overlap(flow, o) <= 0);
    }

    Observation first() {
        return flows.stream().min((a, b) -> Long.compare(a.start, b.start)).orElseThrow();
    }

    long start() {
        return first().start;
    }

    int ttl(boolean forward) {
        return flows.stream().mapToInt(o -> way(o, forward).ttl).max().orElse(0);
    }

    String role() {
        return first().role;
    }

    /** How the first point of a direction saw it; null where it is not known, or nothing ran this way. */
    String hook(boolean forward) {
        List<Hop> hops = hops(forward);
        return hops.isEmpty() ? null : hops.get(0).hook;
    }

    static Way way(Observation o, boolean forward) {
        return forward ? o.forward : o.reverse;
    }

    /** The way of one direction through the host, in the record's order. Empty if nothing ran this way. */
    List<Hop> hops(boolean forward) {
        Counts all = new Counts();
        Counts unseen = null;
        List<Point> points = new ArrayList<>();
        Counts unnamed = new Counts();
        for (Observation o : flows) {
            Way way = way(o, forward);
            all = all.plus(way.counts());
            unnamed = unnamed.plus(way.unnamed);
            if (way.unseen != null) {
                unseen = unseen == null ? way.unseen : unseen.plus(way.unseen);
            }
            way.points.forEach(point -> addTo(points, point));
        }
        if (all.packets == 0) {
            return List.of();
        }
        if (points.isEmpty()) {
            // Only of the first packet, which ran forward, it is known at which hook.
            points.add(new Point(first().interfaceName, forward ? first().hook : null, true, all));
        } else {
            settleCounted(points, all, unnamed);
        }
        List<Hop> hops = new ArrayList<>();
        boolean counted = false;
        for (Point point : points) {
            Hop hop = new Hop();
            hop.node = first().node;
            hop.agent = first().agent;
            hop.interfaceName = point.interfaceName;
            hop.hook = point.hook;
            hop.counts = point.counts;
            hop.sampled = unseen != null;
            // A sample is drawn at each point by itself, and only that of what counts is known: it is for all of that.
            hop.estimate = unseen == null || !point.counted ? null : counted ? point.counts : point.counts.plus(unseen);
            hop.ttl = ttl(forward);
            hop.start = start();
            hop.parallel = point.counted && counted;
            counted |= point.counted;
            hops.add(hop);
        }
        return hops;
    }

    private static void addTo(List<Point> points, Point more) {
        for (Point known : points) {
            if (known.isAt(more)) {
                known.counts = known.counts.plus(more.counts);
                known.counted |= more.counted;
                return;
            }
        }
        points.add(new Point(more.interfaceName, more.hook, more.counted, more.counts));
    }

    /** One counting point has all that the flow counted; of several each has what it said. */
    private static void settleCounted(List<Point> points, Counts all, Counts unnamed) {
        List<Point> counting = points.stream().filter(point -> point.counted).toList();
        if (counting.size() == 1) {
            counting.get(0).counts = all;
        } else if (!counting.isEmpty()) {
            counting.get(0).counts = counting.get(0).counts.plus(unnamed);
        }
    }
}
