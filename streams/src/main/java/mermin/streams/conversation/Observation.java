package mermin.streams.conversation;

import mermin.streams.record.Event;
import mermin.streams.record.FlowRecord;
import mermin.streams.record.Tuple;
import mermin.streams.record.Workload;

/** One flow of one agent, summed up over its records. */
public class Observation {
    public String flowId;
    public String node;
    public String agent;
    public Tuple tuple;
    public int doubt;
    public String role;
    public Workload source;
    public Workload destination;
    /** What the agent's host translates the tuple into, and of what it makes it; null without. */
    public Tuple translatedTo;
    public Tuple translatedFrom;
    public String interfaceName;
    public String hook;
    /** First and last packet, nanoseconds since 1970. */
    public long start;
    public long end;
    public boolean ended;
    public Way forward = new Way();
    public Way reverse = new Way();
    /** Event time of what was heard last, in milliseconds. */
    public long heard = Long.MIN_VALUE;
    /** Event time at which this part of it began to wait, in milliseconds. */
    public long since;
    /** What it was part of, once that was released and the flow went on, and how often that happened. */
    public String conversation;
    public int part;

    /** Of a record that is new, at least in part. */
    public void take(FlowRecord r) {
        boolean newest = flowId == null || r.endTime >= end;
        if (flowId == null) {
            start = r.startTime;
            end = r.endTime;
            since = r.countedAt;
        }
        if (newest) {
            flowId = r.flowId;
            node = r.node;
            agent = r.agent;
            tuple = r.tuple;
            doubt = r.doubt;
            role = r.role;
            interfaceName = r.interfaceName;
            hook = r.hook;
            source = r.source;
            destination = r.destination;
        }
        // Once known it stays: records that were made before the connection was tracked don't say it.
        translatedTo = r.translatedTo == null ? translatedTo : r.translatedTo;
        translatedFrom = r.translatedFrom == null ? translatedFrom : r.translatedFrom;
        start = Math.min(start, r.startTime);
        end = Math.max(end, r.endTime);
        ended |= r.event == Event.END;
        heard = Math.max(heard, r.countedAt);
        forward.take(r.forward, r.isWhole());
        reverse.take(r.reverse, r.isWhole());
    }

    /** A flow that is heard of again after its conversation was released. */
    static Observation of(Released.Flow told, String conversation, int part) {
        Observation o = new Observation();
        o.conversation = conversation;
        o.part = part;
        o.ended = told.ended;
        o.forward.follow(told.begun, told.told);
        o.reverse.follow(told.reverseBegun, told.reverseTold);
        return o;
    }

    /** A part was released: what comes from now on is the next one's. */
    void nextPart(String conversation, int part, long now) {
        this.conversation = conversation;
        this.part = part;
        since = now;
        forward.nextPart();
        reverse.nextPart();
    }

    /** The same with source and destination exchanged: agents that saw no SYN may take either for the initiator. */
    Observation reversed() {
        Observation o = new Observation();
        o.flowId = flowId;
        o.node = node;
        o.agent = agent;
        o.tuple = tuple.reversed();
        o.doubt = doubt;
        o.role = role == null ? null : switch (role) {
            case "inbound" -> "outbound";
            case "outbound" -> "inbound";
            default -> role;
        };
        o.source = destination;
        o.destination = source;
        o.translatedTo = Tuple.reversed(translatedTo);
        o.translatedFrom = Tuple.reversed(translatedFrom);
        o.interfaceName = interfaceName;
        o.hook = hook;
        o.start = start;
        o.end = end;
        o.ended = ended;
        o.forward = reverse;
        o.reverse = forward;
        o.heard = heard;
        o.since = since;
        o.part = part;
        o.conversation = conversation;
        return o;
    }
}
