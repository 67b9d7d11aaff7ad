package mermin.streams.record;

import java.util.ArrayList;
import java.util.List;

/** What one record says of one direction of its flow. */
public class Direction {
    public Counts delta = new Counts();
    public Counts total = new Counts();
    /** What there was, as far as a sample tells; null where every packet was counted. */
    public Counts estimate;
    /** Greatest TTL or hop limit; 0 where no packet ran this way. */
    public int ttl;
    /** Observation points in the order of packets' way; empty where there was but one. */
    public List<Point> hops = new ArrayList<>();

    /** Totals before this record. */
    public Counts before() {
        return total.minus(delta);
    }
}
