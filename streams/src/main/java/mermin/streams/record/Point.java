package mermin.streams.record;

/** One observation point of a record's {@code flow.hops}: an interface, its hook, and what it saw since the record before. */
public class Point {
    public String interfaceName;
    public String hook;
    /** Whether the flow's own counts have these in them. */
    public boolean counted;
    public Counts counts = new Counts();

    public Point() {}

    public Point(String interfaceName, String hook, boolean counted, Counts counts) {
        this.interfaceName = interfaceName;
        this.hook = hook;
        this.counted = counted;
        this.counts = counts;
    }

    public boolean isAt(Point other) {
        return java.util.Objects.equals(interfaceName, other.interfaceName) && java.util.Objects.equals(hook, other.hook);
    }
}
