package mermin.streams.record;

/**
 * Packets, IP bytes and bytes on the link of one direction.
 *
 * <p>Along one flow totals only grow, all three together, so of two of them the one with more packets is the later one. That
 * is why {@link #laterOf} and {@link #earlierOf} may look at packets alone.
 */
public class Counts {
    public long packets;
    public long bytes;
    public long frameBytes;

    public Counts() {}

    public Counts(long packets, long bytes, long frameBytes) {
        this.packets = packets;
        this.bytes = bytes;
        this.frameBytes = frameBytes;
    }

    public Counts plus(Counts other) {
        return new Counts(packets + other.packets, bytes + other.bytes, frameBytes + other.frameBytes);
    }

    public Counts minus(Counts other) {
        return new Counts(packets - other.packets, bytes - other.bytes, frameBytes - other.frameBytes);
    }

    public static Counts laterOf(Counts a, Counts b) {
        return a.packets >= b.packets ? a : b;
    }

    public static Counts earlierOf(Counts a, Counts b) {
        return a.packets <= b.packets ? a : b;
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof Counts c && packets == c.packets && bytes == c.bytes && frameBytes == c.frameBytes;
    }

    @Override
    public int hashCode() {
        return Long.hashCode(packets * 31 + bytes);
    }

    @Override
    public String toString() {
        return packets + "/" + bytes + "/" + frameBytes;
    }
}
