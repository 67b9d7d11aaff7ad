package mermin.streams.conversation;

import java.util.ArrayList;
import java.util.List;
import mermin.streams.record.Counts;

/** What is remembered of a conversation that was released: enough to know who comes late to it, and with what. */
public class Released {
    /** A flow that was in it, with the stretches of its totals that were told. */
    public static class Flow {
        public String id;
        public String node;
        public String agent;
        public boolean ended;
        public Counts begun;
        public Counts told;
        public Counts reverseBegun;
        public Counts reverseTold;

        public Flow() {}

        private Flow(Observation o) {
            id = o.flowId;
            node = o.node;
            agent = o.agent;
            ended = o.ended;
            begun = o.forward.begun();
            told = o.forward.to;
            reverseBegun = o.reverse.begun();
            reverseTold = o.reverse.to;
        }
    }

    public String id;
    public long start;
    public long end;
    public List<Flow> flows = new ArrayList<>();
    /** Whether it was a late view, whose packets another one has: so are those that come for it. */
    public boolean late;
    /** Parts so far. */
    public int parts;
    /** Event time until which it is remembered, in milliseconds. */
    public long until;

    static Released of(Conversation c, List<Observation> group, long until) {
        Released r = new Released();
        r.id = c.id;
        r.start = c.start;
        r.end = c.end;
        group.forEach(o -> r.flows.add(new Flow(o)));
        r.late = c.event == Conversation.Event.LATE;
        r.parts = c.part + 1;
        r.until = until;
        return r;
    }

    /** What was told of a flow; null if it was not in it. */
    Flow flow(String flowId) {
        return flows.stream().filter(flow -> flow.id.equals(flowId)).findFirst().orElse(null);
    }

    /** Whether one of its flows goes on in the group. */
    boolean goesOnIn(List<Observation> group) {
        return group.stream().anyMatch(o -> flow(o.flowId) != null);
    }

    /** Whether the group is of its packets, seen by other agents: of its own ones each flow was in it. */
    boolean isSeenBy(List<Observation> group, long tolerance) {
        return group.stream().allMatch(o -> Math.min(o.end, end) - Math.max(o.start, start) >= -tolerance
                && flows.stream().noneMatch(flow -> flow.node.equals(o.node) && flow.agent.equals(o.agent)));
    }
}
