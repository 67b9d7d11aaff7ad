package mermin.streams.conversation;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * Which flows of one tuple are the same conversation, seen by several agents.
 *
 * <p>Flows of one agent don't overlap, those of several do if they are of the same packets. So flows that overlap in time belong
 * together, also several of one agent (it cut where another went on). Clocks differ, though, and a port may be used again at
 * once: where an overlap is shorter than clocks may differ, or a gap is no longer than that, two flows belong together only if
 * each is the other's nearest by the time of their first packets.
 */
final class Grouping {
    private Grouping() {}

    static List<List<Observation>> of(List<Observation> all, long tolerance) {
        int[] group = new int[all.size()];
        Arrays.setAll(group, i -> i);
        for (int a = 0; a < group.length; a++) {
            for (int b = a + 1; b < group.length; b++) {
                if (belongTogether(all, a, b, tolerance)) {
                    join(group, a, b);
                }
            }
        }
        List<List<Observation>> groups = new ArrayList<>();
        for (int leader = 0; leader < group.length; leader++) {
            List<Observation> members = new ArrayList<>();
            for (int i = 0; i < group.length; i++) {
                if (group[i] == leader) {
                    members.add(all.get(i));
                }
            }
            if (!members.isEmpty()) {
                groups.add(members);
            }
        }
        return groups;
    }

    private static boolean belongTogether(List<Observation> all, int a, int b, long tolerance) {
        Observation one = all.get(a);
        Observation two = all.get(b);
        if (one.conversation != null && one.conversation.equals(two.conversation)) {
            return true;
        }
        if (isSameAgent(one, two)) {
            return false;
        }
        long overlap = overlap(one, two);
        if (overlap > tolerance) {
            return true;
        }
        return overlap >= -tolerance && nearest(all, one, two, tolerance) == two && nearest(all, two, one, tolerance) == one;
    }

    /** Of the agent that saw {@code like} the flow that began nearest to {@code of}. */
    private static Observation nearest(List<Observation> all, Observation of, Observation like, long tolerance) {
        Observation nearest = like;
        for (Observation o : all) {
            if (isSameAgent(o, like) && overlap(of, o) >= -tolerance && apart(of, o) < apart(of, nearest)) {
                nearest = o;
            }
        }
        return nearest;
    }

    private static long apart(Observation a, Observation b) {
        return Math.abs(a.start - b.start);
    }

    static long overlap(Observation a, Observation b) {
        return Math.min(a.end, b.end) - Math.max(a.start, b.start);
    }

    static boolean isSameAgent(Observation a, Observation b) {
        return a.node.equals(b.node) && a.agent.equals(b.agent);
    }

    private static void join(int[] group, int a, int b) {
        int from = Math.max(group[a], group[b]);
        int to = Math.min(group[a], group[b]);
        for (int i = 0; i < group.length; i++) {
            if (group[i] == from) {
                group[i] = to;
            }
        }
    }
}
