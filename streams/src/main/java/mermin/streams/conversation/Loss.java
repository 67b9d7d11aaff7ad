package mermin.streams.conversation;

import java.util.List;
import mermin.streams.record.Counts;

/** Where packets were lost: what a hop has less than the one before it. */
public final class Loss {
    private Loss() {}

    /**
     * Says it of each hop but the first. Points that share a direction are compared as one, so the loss stands at the first of
     * them. Between points of a host that sampled it is unknown: each drew by itself.
     */
    public static void between(List<Hop> hops) {
        Counts before = null;
        for (int i = 0; i < hops.size();) {
            int next = i + 1;
            while (next < hops.size() && hops.get(next).parallel) {
                next++;
            }
            Counts here = sum(hops.subList(i, next));
            Hop hop = hops.get(i);
            hop.lost = null;
            hop.lostBytes = null;
            if (before != null && here != null) {
                hop.lost = before.packets - here.packets;
                hop.lostBytes = before.bytes - here.bytes;
            }
            before = here != null ? here : before;
            i = next;
        }
    }

    private static Counts sum(List<Hop> hops) {
        if (hops.get(0).sampled) {
            boolean known = hops.stream().allMatch(hop -> hop.estimate != null);
            return known ? hops.stream().map(hop -> hop.estimate).reduce(new Counts(), Counts::plus) : null;
        }
        return hops.stream().map(hop -> hop.counts).reduce(new Counts(), Counts::plus);
    }

    /** All that was lost on the way, as far as it can be said. */
    public static long total(List<Hop> hops) {
        return hops.stream().filter(hop -> hop.lost != null).mapToLong(hop -> hop.lost).sum();
    }
}
