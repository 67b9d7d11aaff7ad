package mermin.streams.duplicates;

import mermin.streams.record.Counts;

/** How far a flow had come: what both directions had counted. Totals only grow, so of two of one flow one is the earlier. */
public class Totals {
    public Counts forward = new Counts();
    public Counts reverse = new Counts();

    public Totals() {}

    Totals(Counts forward, Counts reverse) {
        this.forward = forward;
        this.reverse = reverse;
    }

    long packets() {
        return forward.packets + reverse.packets;
    }

    Totals minus(Totals other) {
        return new Totals(forward.minus(other.forward), reverse.minus(other.reverse));
    }

    Totals plus(Totals other) {
        return new Totals(forward.plus(other.forward), reverse.plus(other.reverse));
    }

    static Totals laterOf(Totals a, Totals b) {
        return a.packets() >= b.packets() ? a : b;
    }

    static Totals earlierOf(Totals a, Totals b) {
        return a.packets() <= b.packets() ? a : b;
    }
}
