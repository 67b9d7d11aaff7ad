package mermin.streams.record;

import java.util.Objects;

/** Addresses, ports and protocol, the initiator first. */
public class Tuple {
    public String networkType;
    public String transport;
    public int protocol;
    public String sourceAddress;
    /** Absent where the protocol has none. */
    public Integer sourcePort;
    public String destinationAddress;
    public Integer destinationPort;
    public Integer icmpType;
    public Integer icmpCode;

    /** Protocol, address and port of the initiator: what destination NAT leaves as it is. */
    public String sourceEnd() {
        return protocol + " " + sourceAddress + " " + sourcePort;
    }

    /** Protocol, address and port of the other end: what source NAT leaves as it is. */
    public String destinationEnd() {
        return protocol + " " + destinationAddress + " " + destinationPort;
    }

    /** Both ends, the same from either side. */
    public String bothEnds() {
        String source = sourceAddress + " " + sourcePort;
        String destination = destinationAddress + " " + destinationPort;
        boolean inOrder = source.compareTo(destination) <= 0;
        return protocol + " " + (inOrder ? source : destination) + " " + (inOrder ? destination : source);
    }

    /** Whether {@link #bothEnds} are the same. */
    public boolean hasBothEndsOf(Tuple t) {
        return equals(t) || equals(t.reversed());
    }

    /** Whether {@link #sourceEnd} is the same, without making texts of it. */
    public boolean hasSourceEndOf(Tuple t) {
        return protocol == t.protocol && sourceAddress.equals(t.sourceAddress) && Objects.equals(sourcePort, t.sourcePort);
    }

    /** The same of {@link #destinationEnd}. */
    public boolean hasDestinationEndOf(Tuple t) {
        return protocol == t.protocol && destinationAddress.equals(t.destinationAddress)
                && Objects.equals(destinationPort, t.destinationPort);
    }

    /** Whether a NAT could rewrite it and leave it known: it has ports, and goes to one receiver. */
    public boolean isOfTwoPorts() {
        boolean group = destinationAddress.startsWith("ff") || destinationAddress.equals("255.255.255.255")
                || destinationAddress.matches("2(2[4-9]|3\\d)\\..*");
        return sourcePort != null && destinationPort != null && !group;
    }

    /** The same, seen from the other end. */
    public Tuple reversed() {
        Tuple t = new Tuple();
        t.networkType = networkType;
        t.transport = transport;
        t.protocol = protocol;
        t.sourceAddress = destinationAddress;
        t.sourcePort = destinationPort;
        t.destinationAddress = sourceAddress;
        t.destinationPort = sourcePort;
        t.icmpType = icmpType;
        t.icmpCode = icmpCode;
        return t;
    }

    /** The same, where there may be none. */
    public static Tuple reversed(Tuple t) {
        return t == null ? null : t.reversed();
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof Tuple t && hasSourceEndOf(t) && hasDestinationEndOf(t);
    }

    @Override
    public int hashCode() {
        return Objects.hash(protocol, sourceAddress, sourcePort, destinationAddress, destinationPort);
    }

    @Override
    public String toString() {
        return protocol + " " + sourceAddress + ":" + sourcePort + " " + destinationAddress + ":" + destinationPort;
    }
}
