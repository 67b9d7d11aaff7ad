package mermin.streams.conversation;

import java.util.ArrayList;
import java.util.List;

/** What is remembered of a conversation that was released: enough to know who comes late to it. */
public class Released {
    public String id;
    public long start;
    public long end;
    public List<String> flowIds = new ArrayList<>();
    public List<String> agents = new ArrayList<>();
    /** Parts so far. */
    public int parts;
    /** Event time until which it is remembered, in milliseconds. */
    public long until;

    static Released of(Conversation c, List<Observation> group, long until) {
        Released r = new Released();
        r.id = c.id;
        r.start = c.start;
        r.end = c.end;
        for (Observation o : group) {
            r.flowIds.add(o.flowId);
            r.agents.add(o.node + "\n" + o.agent);
        }
        r.parts = c.part + 1;
        r.until = until;
        return r;
    }

    /** Whether one of its flows goes on in the group. */
    boolean goesOnIn(List<Observation> group) {
        return group.stream().anyMatch(o -> flowIds.contains(o.flowId));
    }

    /** Whether the group is of its packets, seen by other agents: of its own ones each flow was in it. */
    boolean isSeenBy(List<Observation> group, long tolerance) {
        return group.stream().allMatch(o -> Math.min(o.end, end) - Math.max(o.start, start) >= -tolerance
                && !agents.contains(o.node + "\n" + o.agent));
    }
}
