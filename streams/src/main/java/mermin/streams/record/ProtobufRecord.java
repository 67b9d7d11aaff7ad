package mermin.streams.record;

import java.nio.charset.StandardCharsets;

/** A record from its protobuf message. Fields that are unknown or of no use are passed over. */
public final class ProtobufRecord {
    private final ProtobufSchema flow = ProtobufSchema.of("Flow");
    private final ProtobufSchema hop = ProtobufSchema.of("Hop");

    public FlowRecord read(byte[] message) throws MalformedRecord {
        FlowRecord record = new FlowRecord();
        Wire wire = new Wire(message, 0, message.length);
        while (wire.next()) {
            ProtobufSchema.Field field = flow.field(wire.number);
            if (field == null) {
                continue;
            }
            switch (field.type()) {
                case TEXT -> Attributes.text(record, field.name(), wire.text());
                case NUMBER -> Attributes.number(record, field.name(), wire.value);
                case HOP -> {
                    Direction direction = field.name().equals("flow.hops") ? record.forward : record.reverse;
                    direction.hops.add(point(wire.inner()));
                }
                default -> { }
            }
        }
        Attributes.check(record);
        return record;
    }

    private Point point(Wire wire) throws MalformedRecord {
        Point point = new Point();
        while (wire.next()) {
            ProtobufSchema.Field field = hop.field(wire.number);
            if (field == null) {
                continue;
            }
            switch (field.name()) {
                case "interface" -> point.interfaceName = wire.text();
                case "hook" -> point.hook = wire.text();
                case "counted" -> point.counted = wire.value != 0;
                case "packets" -> point.counts.packets = wire.value;
                case "bytes" -> point.counts.bytes = wire.value;
                case "frame_bytes" -> point.counts.frameBytes = wire.value;
                default -> { }
            }
        }
        return point;
    }

    /** Protobuf's wire format: fields one after the other, each a number, a kind and a value. */
    private static final class Wire {
        private final byte[] bytes;
        private final int end;
        private int at;
        int number;
        /** Of a number. */
        long value;
        /** Of anything else: its place; -1 where it is a number. */
        private int from;
        private int length;

        Wire(byte[] bytes, int from, int length) {
            this.bytes = bytes;
            this.at = from;
            this.end = from + length;
        }

        boolean next() throws MalformedRecord {
            if (at == end) {
                return false;
            }
            long tag = varint();
            number = (int) (tag >>> 3);
            from = -1;
            switch ((int) (tag & 7)) {
                case 0 -> value = varint();
                case 1 -> value = fixed(8);
                case 2 -> {
                    long n = varint();
                    if (n < 0 || n > end - at) {
                        throw new MalformedRecord("a field goes beyond its message");
                    }
                    from = at;
                    length = (int) n;
                    at += length;
                }
                case 5 -> value = fixed(4);
                default -> throw new MalformedRecord("no wire type of protobuf 3");
            }
            return true;
        }

        String text() throws MalformedRecord {
            needsLength();
            return new String(bytes, from, length, StandardCharsets.UTF_8);
        }

        Wire inner() throws MalformedRecord {
            needsLength();
            return new Wire(bytes, from, length);
        }

        private void needsLength() throws MalformedRecord {
            if (from < 0) {
                throw new MalformedRecord("field " + number + " is a number");
            }
        }

        private long varint() throws MalformedRecord {
            long n = 0;
            for (int shift = 0; shift < 64; shift += 7) {
                if (at == end) {
                    throw new MalformedRecord("the message ends within a number");
                }
                byte b = bytes[at++];
                n |= (long) (b & 0x7f) << shift;
                if (b >= 0) {
                    return n;
                }
            }
            throw new MalformedRecord("a number of more than 64 bits");
        }

        private long fixed(int size) throws MalformedRecord {
            if (end - at < size) {
                throw new MalformedRecord("the message ends within a number");
            }
            long n = 0;
            for (int i = 0; i < size; i++) {
                n |= (bytes[at++] & 0xffL) << (8 * i);
            }
            return n;
        }
    }
}
