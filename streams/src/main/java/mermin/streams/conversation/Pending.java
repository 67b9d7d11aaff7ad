package mermin.streams.conversation;

import java.util.ArrayList;
import java.util.List;
import mermin.streams.record.FlowRecord;

/**
 * What waits of one tuple, and what is due: the state of {@link Conversations}, without Flink.
 *
 * <p>Bounded: {@value #FLOWS} flows wait and {@value #RELEASED} released conversations are remembered. At the first bound all
 * that waits is released before its time: which flows belong together takes the cube of their number to say, in the worst
 * case, and a tuple that thousands of hosts have (DHCP's) must not cost that with each record.
 */
public class Pending {
    static final int FLOWS = 256;
    static final int RELEASED = 16;

    public List<Observation> flows = new ArrayList<>();
    public List<Released> released = new ArrayList<>();
    /** The earliest timer that is set, in milliseconds of event time. */
    public long timer = Long.MAX_VALUE;

    /** Adds a record to its flow. When to look at it, if nothing more is heard: no later than anything of it is due. */
    long take(FlowRecord r, Patience patience) {
        Observation flow = null;
        for (Observation o : flows) {
            if (o.flowId.equals(r.flowId)) {
                flow = o;
                break;
            }
        }
        if (flow == null) {
            flow = begin(r.flowId);
            flows.add(flow);
        }
        flow.take(r);
        List<Observation> alone = List.of(flow);
        return Math.min(endDue(alone, patience), partDue(alone, patience));
    }

    /** A flow that was not waiting: a new one, or what comes of one after its conversation's end was released. */
    private Observation begin(String flowId) {
        // The latest release knows all that was told.
        for (int i = released.size() - 1; i >= 0; i--) {
            Released.Flow told = released.get(i).flow(flowId);
            if (told != null) {
                return Observation.of(told, released.get(i).id, released.get(i).parts);
            }
        }
        return new Observation();
    }

    boolean isFull() {
        return flows.size() >= FLOWS;
    }

    boolean isEmpty() {
        return flows.isEmpty() && released.isEmpty();
    }

    /** When something is due next, if nothing more is heard. */
    long nextDue(Patience patience) {
        long next = Long.MAX_VALUE;
        for (List<Observation> group : Grouping.of(flows, patience.toleranceNanos())) {
            next = Math.min(next, Math.min(endDue(group, patience), partDue(group, patience)));
        }
        for (Released r : released) {
            next = Math.min(next, r.until);
        }
        return next;
    }

    /** Releases what is due at {@code now}. */
    List<Conversation> due(String communityId, long now, Patience patience) {
        released.removeIf(r -> r.until <= now);
        List<Conversation> out = new ArrayList<>();
        for (List<Observation> group : Grouping.of(flows, patience.toleranceNanos())) {
            if (endDue(group, patience) <= now) {
                out.add(end(communityId, group, now, patience));
            } else if (partDue(group, patience) <= now) {
                out.add(part(communityId, group, now, patience));
            }
        }
        return out;
    }

    /** Makes room: all that waits goes. */
    List<Conversation> force(String communityId, long now, Patience patience) {
        List<Conversation> out = new ArrayList<>();
        for (List<Observation> group : Grouping.of(flows, patience.toleranceNanos())) {
            out.add(end(communityId, group, now, patience));
        }
        return out;
    }

    private Conversation end(String communityId, List<Observation> group, long now, Patience patience) {
        Released earlier = earlier(group, patience);
        boolean late = earlier != null && (earlier.late || !earlier.goesOnIn(group) && parts(group) == 0);
        Conversation c = Assembly.of(communityId, group, late ? Conversation.Event.LATE : Conversation.Event.END,
                earlier == null ? parts(group) : Math.max(parts(group), earlier.parts));
        if (earlier != null) {
            c.id = earlier.id;
        }
        flows.removeAll(group);
        remember(Released.of(c, group, now + patience.memory()));
        return c;
    }

    private Conversation part(String communityId, List<Observation> group, long now, Patience patience) {
        Released earlier = earlier(group, patience);
        Conversation c = Assembly.of(communityId, group, Conversation.Event.PART,
                earlier == null ? parts(group) : Math.max(parts(group), earlier.parts));
        if (earlier != null) {
            c.id = earlier.id;
        }
        for (Observation o : group) {
            o.nextPart(c.id, c.part + 1, now);
        }
        return c;
    }

    private static int parts(List<Observation> group) {
        return group.stream().mapToInt(o -> o.part).max().orElse(0);
    }

    private Released earlier(List<Observation> group, Patience patience) {
        for (Released r : released) {
            if (r.goesOnIn(group)) {
                return r;
            }
        }
        for (Released r : released) {
            if (r.isSeenBy(group, patience.toleranceNanos())) {
                return r;
            }
        }
        return null;
    }

    private void remember(Released r) {
        released.add(r);
        while (released.size() > RELEASED) {
            released.remove(0);
        }
    }

    private static long endDue(List<Observation> group, Patience patience) {
        boolean ended = group.stream().allMatch(o -> o.ended);
        return heard(group) + (ended ? patience.others() : patience.silence());
    }

    private static long partDue(List<Observation> group, Patience patience) {
        return group.stream().mapToLong(o -> o.since).min().orElseThrow() + patience.part();
    }

    private static long heard(List<Observation> group) {
        return group.stream().mapToLong(o -> o.heard).max().orElseThrow();
    }
}
