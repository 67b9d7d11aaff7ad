package mermin.streams.conversation;

import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;

/**
 * The order of hosts on the way of one direction.
 *
 * <p>Every router takes one off the TTL, so the host that saw the greatest is the first. Two may have seen the same: what leaves
 * one comes to the next as it was, so a host that saw packets going out is before one that saw them coming in. Then the end
 * that the addresses belong to is first or last, as far as agents know their addresses; then the first packet's time decides,
 * though clocks differ.
 */
public final class HopOrder {
    /** What told two neighbours apart, the surest first. */
    public enum By { SINGLE, TTL, HOOK, DIRECTION, TIME, NAME }

    final List<Host> hosts;
    /** The least sure of what had to decide. */
    final By by;

    private HopOrder(List<Host> hosts, By by) {
        this.hosts = hosts;
        this.by = by;
    }

    static HopOrder of(List<Host> all, boolean forward) {
        List<Host> hosts = new ArrayList<>(all);
        boolean ttls = hosts.stream().allMatch(host -> host.ttl(forward) > 0);
        Comparator<Host> ttl = Comparator.comparingInt(host -> ttls ? -host.ttl(forward) : 0);
        // Where a record doesn't say how packets were seen, hooks tell nothing of any.
        boolean hooks = hosts.stream().allMatch(host -> host.hook(forward) != null);
        Comparator<Host> hook = Comparator.comparingInt(host -> hooks && host.hook(forward).equals("ingress") ? 1 : 0);
        Comparator<Host> direction = Comparator.comparingInt(host -> place(host.role(), forward));
        Comparator<Host> time = Comparator.comparingLong(host -> forward ? host.start() : -host.start());
        Comparator<Host> name = Comparator.comparing(host -> host.first().node + " " + host.first().agent);
        hosts.sort(ttl.thenComparing(hook).thenComparing(direction).thenComparing(time).thenComparing(name));
        By by = By.SINGLE;
        for (int i = 1; i < hosts.size(); i++) {
            Host a = hosts.get(i - 1);
            Host b = hosts.get(i);
            By decided = ttl.compare(a, b) != 0 ? By.TTL
                    : hook.compare(a, b) != 0 ? By.HOOK
                    : direction.compare(a, b) != 0 ? By.DIRECTION
                    : time.compare(a, b) != 0 ? By.TIME : By.NAME;
            by = decided.compareTo(by) > 0 ? decided : by;
        }
        return new HopOrder(hosts, by);
    }

    private static int place(String role, boolean forward) {
        if (role == null) {
            return 1;
        }
        return switch (role) {
            case "outbound" -> forward ? 0 : 2;
            case "inbound" -> forward ? 2 : 0;
            default -> 1;
        };
    }
}
