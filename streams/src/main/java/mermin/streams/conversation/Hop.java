package mermin.streams.conversation;

import mermin.streams.record.Counts;

/** One observation point on the way of a conversation's packets. */
public class Hop {
    public String node;
    public String agent;
    public String interfaceName;
    /** Null where the record doesn't say it. */
    public String hook;
    public Counts counts = new Counts();
    /** What there was, as far as a sample tells; null where every packet was counted, and where it can't be known. */
    public Counts estimate;
    /** Whether the agent sampled. */
    public boolean sampled;
    /** Greatest TTL that the agent saw; 0 where it is unknown. */
    public int ttl;
    /** First packet of the flow at this agent. */
    public long start;
    /** Packets that the hop before had and this one has not; negative if this one has more; null where it can't be said. */
    public Long lost;
    public Long lostBytes;
    /** Which of the conversation's tuples the packets had here. */
    public int tuple;
    /** Beside the one before, not behind it: a direction that is shared by several points of one node. */
    public boolean parallel;

    /** Whether the same agent saw the other. */
    public boolean isAtNodeOf(Hop other) {
        return node.equals(other.node) && agent.equals(other.agent);
    }
}
