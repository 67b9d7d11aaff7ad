package mermin.streams.record;

/**
 * What the job reads of a flow record: of its eighty attributes those that results are made of.
 *
 * <p>A plain object with public fields, so that Flink's own serialization knows it, keeps it in state and finds it again after
 * a field was added.
 */
public class FlowRecord {
    /** Headers of the message: the observing node's name and its agent's id. */
    public String node;
    public String agent;

    public String flowId;
    public String communityId;
    public Event event;
    /** Nanoseconds since 1970. */
    public long startTime;
    public long endTime;
    public Tuple tuple = new Tuple();
    /** How sure it is who began ({@code flow.initiator}): 0 a SYN, 5 nothing but the first packet seen. */
    public int doubt;
    /** {@code flow.direction}: inbound, outbound, transit, within node; null where unknown. */
    public String role;
    public Workload source = new Workload();
    public Workload destination = new Workload();
    public Direction forward = new Direction();
    public Direction reverse = new Direction();
    /** The tuple that the agent's host translates this one into, or that it makes this one of, in the same order; null without. */
    public Tuple translatedTo;
    public Tuple translatedFrom;
    /** The point of the first packet. */
    public String interfaceName;
    public String hook;

    // The other tuple as the record has it, until it is read to its end.
    transient String natStage;
    transient String natSource;
    transient Integer natSourcePort;
    transient String natDestination;
    transient Integer natDestinationPort;

    /** The message could not be read; nothing but {@link #countedAt} is set. */
    public boolean malformed;

    // What the job finds out (see Duplicates).

    /** Milliseconds of event time at which it counts: its end time, or later if that is past. */
    public long countedAt;
    public Timing timing;
    /** Of the deltas what was in no record before: all of it, but for records that overlap. */
    public Counts newForward;
    public Counts newReverse;
    /** Whether this is the record that says that the flow began, ended. */
    public boolean begins;
    public boolean ends;

    public long endMillis() {
        return Math.floorDiv(endTime, 1_000_000L);
    }

    /** Whether nothing of its deltas was in a record before. */
    public boolean isWhole() {
        return newForward.equals(forward.delta) && newReverse.equals(reverse.delta);
    }
}
