package mermin.streams.conversation;

import java.util.ArrayList;
import java.util.List;
import mermin.streams.record.Counts;
import mermin.streams.record.Direction;
import mermin.streams.record.Point;

/**
 * One direction of a flow, as one agent saw it, over its records so far.
 *
 * <p>Totals tell also of a report in the middle that has not come. So what a part told is a stretch of the totals, with nothing
 * missing, and a report that comes for it afterwards adds nothing; one from before its begin, or behind its end, does.
 */
public class Way {
    /** What the conversation's earlier parts told: the totals where it begins, null if nothing was, and where it ends. */
    public Counts begun;
    public Counts told = new Counts();
    /** Of before that, what came since. */
    public Counts earlier = new Counts();
    /** Totals before the earliest record of this part, and of the latest. */
    public Counts from;
    public Counts to = new Counts();
    /** What a sample says there was beyond what was counted; null without sampling. */
    public Counts unseen;
    public int ttl;
    public List<Point> points = new ArrayList<>();
    /** Of records that named no points: the one point's. */
    public Counts unnamed = new Counts();

    void take(Direction d, boolean whole) {
        Counts before = d.before();
        if (begun != null && before.packets < begun.packets) {
            earlier = earlier.plus(begun.minus(before));
            begun = before;
        }
        Counts after = Counts.laterOf(before, told);
        from = from == null ? after : Counts.earlierOf(from, after);
        to = Counts.laterOf(to, d.total);
        ttl = Math.max(ttl, d.ttl);
        if (!whole) {
            // Cut differently than before: what of its hops and estimates is new can't be told.
            return;
        }
        if (d.estimate != null) {
            var more = d.estimate.minus(d.delta);
            unseen = unseen == null ? more : unseen.plus(more);
        }
        if (d.hops.isEmpty()) {
            unnamed = unnamed.plus(d.delta);
        }
        for (var hop : d.hops) {
            add(hop);
        }
    }

    private void add(Point hop) {
        for (var known : points) {
            if (known.isAt(hop)) {
                known.counts = known.counts.plus(hop.counts);
                known.counted |= hop.counted;
                return;
            }
        }
        points.add(new Point(hop.interfaceName, hop.hook, hop.counted, hop.counts));
    }

    /** What the agent counted in this part, also where a report in the middle never came. */
    Counts counts() {
        return from == null ? earlier : to.minus(from).plus(earlier);
    }

    /** Where what was told begins, once this part was. */
    Counts begun() {
        return begun == null ? from : begun;
    }

    /** Where the next part begins: behind this stretch. */
    void follow(Counts begun, Counts told) {
        this.begun = begun;
        this.told = told;
        from = told;
        to = told;
    }

    void nextPart() {
        follow(begun(), to);
        earlier = new Counts();
        unseen = unseen == null ? null : new Counts();
        unnamed = new Counts();
        points.forEach(point -> point.counts = new Counts());
    }
}
