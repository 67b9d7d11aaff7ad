package mermin.streams.record;

/** Records for tests: a flow whose records follow each other, one packet of 100 bytes and 114 on the link each. */
public final class Flows {
    public static final long SECOND = 1_000_000_000L;

    private final String id;
    private final String node;
    public final Tuple tuple = new Tuple();
    public int ttl = 64;
    public int reverseTtl = 64;
    public String role;
    public int doubt;
    private final Counts there = new Counts();
    private final Counts back = new Counts();
    private final long start;

    public Flows(String id, String node, long startMillis) {
        this.id = id;
        this.node = node;
        this.start = startMillis * 1_000_000;
        tuple.networkType = "ipv4";
        tuple.transport = "tcp";
        tuple.protocol = 6;
        tuple.sourceAddress = "10.0.0.1";
        tuple.sourcePort = 4000;
        tuple.destinationAddress = "10.0.0.2";
        tuple.destinationPort = 443;
    }

    /** The flow's next record. */
    public FlowRecord next(Event event, long endMillis, long packets, long answers) {
        FlowRecord r = new FlowRecord();
        r.flowId = id;
        r.node = node;
        r.agent = "agent-" + node;
        r.communityId = "1:" + tuple;
        r.event = event;
        r.startTime = start;
        r.endTime = endMillis * 1_000_000;
        r.countedAt = endMillis;
        r.tuple = tuple;
        r.doubt = doubt;
        r.role = role;
        r.source.offer(Workload.Kind.ADDRESS, tuple.sourceAddress);
        r.destination.offer(Workload.Kind.ADDRESS, tuple.destinationAddress);
        r.interfaceName = "eth0";
        r.hook = "ingress";
        r.forward.delta = new Counts(packets, 100 * packets, 114 * packets);
        r.reverse.delta = new Counts(answers, 100 * answers, 114 * answers);
        add(there, r.forward.delta);
        add(back, r.reverse.delta);
        r.forward.total = there.plus(new Counts());
        r.reverse.total = back.plus(new Counts());
        r.forward.ttl = packets > 0 ? ttl : 0;
        r.reverse.ttl = answers > 0 ? reverseTtl : 0;
        r.newForward = r.forward.delta;
        r.newReverse = r.reverse.delta;
        r.timing = Timing.ON_TIME;
        return r;
    }

    /** Two neighbours as one, as an output that lags behind makes them. */
    public static FlowRecord merged(FlowRecord earlier, FlowRecord later) {
        FlowRecord both = copy(later);
        both.forward.delta = later.forward.delta.plus(earlier.forward.delta);
        both.reverse.delta = later.reverse.delta.plus(earlier.reverse.delta);
        return both;
    }

    public static FlowRecord copy(FlowRecord r) {
        FlowRecord c = new FlowRecord();
        c.flowId = r.flowId;
        c.node = r.node;
        c.agent = r.agent;
        c.communityId = r.communityId;
        c.event = r.event;
        c.startTime = r.startTime;
        c.endTime = r.endTime;
        c.countedAt = r.countedAt;
        c.tuple = r.tuple;
        c.source = r.source;
        c.destination = r.destination;
        c.forward.delta = r.forward.delta;
        c.forward.total = r.forward.total;
        c.reverse.delta = r.reverse.delta;
        c.reverse.total = r.reverse.total;
        c.forward.ttl = r.forward.ttl;
        c.reverse.ttl = r.reverse.ttl;
        return c;
    }

    private static void add(Counts to, Counts more) {
        to.packets += more.packets;
        to.bytes += more.bytes;
        to.frameBytes += more.frameBytes;
    }
}
