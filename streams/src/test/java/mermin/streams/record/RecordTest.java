package mermin.streams.record;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.io.ByteArrayOutputStream;
import java.nio.charset.StandardCharsets;
import java.util.Random;
import org.junit.jupiter.api.Test;

class RecordTest {
    /** A line of `mermin -o json`, shortened. */
    private static final String LINE = """
            {"flow.id":"9ba0c35e8899eb7f936382ec81bc033d","flow.sequence":1,"flow.community_id":"1:6xZTivlnaOfyb3UpVsa2K1mYjkI=",\
            "flow.event":"end","flow.end_reason":"forced end","flow.start_time":"2016-08-28T14:05:22.365661000Z",\
            "flow.end_time":"2016-08-28T14:05:23.665163007Z","network.type":"ipv4","network.transport":"tcp",\
            "network.transport.number":6,"source.address":"192.168.43.18","source.port":52066,"source.k8s.namespace.name":"shop",\
            "source.k8s.pod.name":"cart-7-x","source.k8s.node.name":"n1","source.k8s.replicaset.name":"cart-7",\
            "source.k8s.deployment.name":"cart","source.k8s.pod.label.app":"x","destination.address":"66.220.156.68",\
            "destination.port":443,"destination.name":"partner","flow.initiator":"syn_ack","flow.direction":"outbound",\
            "flow.packets.delta":9,"flow.packets.total":19,"flow.bytes.delta":1219,"flow.bytes.total":2219,\
            "flow.frame_bytes.delta":1345,"flow.frame_bytes.total":2345,"flow.ttl.max":64,"flow.reverse.packets.delta":10,\
            "flow.reverse.packets.total":10,"flow.reverse.bytes.delta":4260,"flow.reverse.bytes.total":4260,\
            "flow.reverse.frame_bytes.delta":4400,"flow.reverse.frame_bytes.total":4400,"flow.reverse.ttl.max":77,\
            "flow.tcp.flags":["SYN","ACK"],"network.interface.name":"eth0","network.interface.hook":"egress",\
            "flow.hops":[{"interface":"veth1","hook":"ingress","counted":true,"packets":9,"bytes":1219,"frame_bytes":1345},\
            {"interface":"eth0","hook":"egress","counted":false,"packets":8,"bytes":1100,"frame_bytes":1212}],\
            "flow.packets.estimate":90,"flow.bytes.estimate":12190}""";

    private static FlowRecord json(String text) throws MalformedRecord {
        return new JsonRecord().read(text.getBytes(StandardCharsets.UTF_8));
    }

    private static void check(FlowRecord r) {
        assertEquals("9ba0c35e8899eb7f936382ec81bc033d", r.flowId);
        assertEquals(Event.END, r.event);
        assertEquals(1472393122365661000L, r.startTime);
        assertEquals(1472393123665163007L, r.endTime);
        assertEquals("6 192.168.43.18:52066 66.220.156.68:443", r.tuple.toString());
        assertEquals(new Workload(Workload.Kind.DEPLOYMENT, "shop", "cart"), r.source);
        assertEquals(new Workload(Workload.Kind.NAME, null, "partner"), r.destination);
        assertEquals(1, r.doubt);
        assertEquals("outbound", r.role);
        assertEquals(new Counts(9, 1219, 1345), r.forward.delta);
        assertEquals(new Counts(10, 1000, 1000), r.forward.before());
        assertEquals(new Counts(90, 12190, 0), r.forward.estimate);
        assertEquals(new Counts(10, 4260, 4400), r.reverse.delta);
        assertNull(r.reverse.estimate);
        assertEquals(64, r.forward.ttl);
        assertEquals(2, r.forward.hops.size());
        assertEquals("veth1 ingress true 9/1219/1345", text(r.forward.hops.get(0)));
        assertEquals("eth0 egress false 8/1100/1212", text(r.forward.hops.get(1)));
    }

    private static String text(Point p) {
        return p.interfaceName + " " + p.hook + " " + p.counted + " " + p.counts;
    }

    @Test
    void aLineIsRead() throws Exception {
        check(json(LINE));
    }

    @Test
    void theOtherTupleIsOnTheSideThatTheStageSays() throws Exception {
        String translated = "\"flow.nat.stage\":\"%s\",\"destination.nat.ip\":\"10.2.0.9\",\"destination.nat.port\":8443,"
                + "\"flow.nat.community_id\":\"1:other\",\"flow.hops\"";
        FlowRecord before = json(LINE.replace("\"flow.hops\"", translated.formatted("before")));
        assertEquals("6 192.168.43.18:52066 10.2.0.9:8443", before.translatedTo.toString());
        assertNull(before.translatedFrom);
        FlowRecord behind = json(LINE.replace("\"flow.hops\"", translated.formatted("behind")));
        assertEquals("6 192.168.43.18:52066 10.2.0.9:8443", behind.translatedFrom.toString());
        assertNull(behind.translatedTo);
        assertEquals("6 192.168.43.18:52066 66.220.156.68:443", behind.tuple.toString());
        // In the record's own order, also before the attributes of its own tuple.
        FlowRecord source = json("{\"source.nat.ip\":\"192.0.2.1\",\"source.nat.port\":60000," + LINE.substring(1)
                .replace("\"flow.hops\"", "\"flow.nat.stage\":\"before\",\"flow.hops\""));
        assertEquals("6 192.0.2.1:60000 66.220.156.68:443", source.translatedTo.toString());
    }

    @Test
    void theOtherTupleIsReadFromAMessage() throws Exception {
        Message m = new Message().text(1, "f").text(3, "1:x").text(4, "end").fixed(7, 1);
        m.text(number("source.address"), "10.0.0.1").number(number("source.port"), 4000);
        m.text(number("destination.address"), "10.96.0.1").number(number("destination.port"), 80);
        m.text(117, "before").text(118, "192.0.2.1").number(119, 60000).text(120, "10.2.0.9").number(121, 8080).text(122, "1:y");
        assertEquals("0 192.0.2.1:60000 10.2.0.9:8080", new ProtobufRecord().read(m.bytes()).translatedTo.toString());
    }

    /** The same record in both encodings: numbers of fields are those of the committed schema. */
    @Test
    void aMessageIsRead() throws Exception {
        Message m = new Message();
        m.text(1, "9ba0c35e8899eb7f936382ec81bc033d").number(2, 1).text(3, "1:6xZTivlnaOfyb3UpVsa2K1mYjkI=").text(4, "end");
        m.fixed(6, 1472393122365661000L).fixed(7, 1472393123665163007L);
        for (var field : new Object[][] {
            {"network.type", "ipv4"}, {"network.transport", "tcp"}, {"network.transport.number", 6L},
            {"source.address", "192.168.43.18"}, {"source.port", 52066L}, {"source.k8s.namespace.name", "shop"},
            {"source.k8s.pod.name", "cart-7-x"}, {"source.k8s.node.name", "n1"}, {"source.k8s.deployment.name", "cart"},
            {"destination.address", "66.220.156.68"}, {"destination.port", 443L}, {"destination.name", "partner"},
            {"flow.initiator", "syn_ack"}, {"flow.direction", "outbound"}, {"flow.packets.delta", 9L}, {"flow.packets.total", 19L},
            {"flow.bytes.delta", 1219L}, {"flow.bytes.total", 2219L}, {"flow.frame_bytes.delta", 1345L},
            {"flow.frame_bytes.total", 2345L}, {"flow.ttl.max", 64L}, {"flow.reverse.packets.delta", 10L},
            {"flow.reverse.packets.total", 10L}, {"flow.reverse.bytes.delta", 4260L}, {"flow.reverse.bytes.total", 4260L},
            {"flow.reverse.frame_bytes.delta", 4400L}, {"flow.reverse.frame_bytes.total", 4400L},
            {"flow.packets.estimate", 90L}, {"flow.bytes.estimate", 12190L}
        }) {
            int number = number((String) field[0]);
            if (field[1] instanceof String text) {
                m.text(number, text);
            } else {
                m.number(number, (Long) field[1]);
            }
        }
        m.inner(100, new Message().text(1, "veth1").text(2, "ingress").number(3, 1).number(4, 9).number(5, 1219).number(6, 1345));
        m.inner(100, new Message().text(1, "eth0").text(2, "egress").number(3, 0).number(4, 8).number(5, 1100).number(6, 1212));
        // A newer agent's field.
        m.text(4000, "unknown").number(4001, 5);
        check(new ProtobufRecord().read(m.bytes()));
    }

    private static int number(String name) {
        ProtobufSchema schema = ProtobufSchema.of("Flow");
        for (int number = 1; number < 500; number++) {
            if (schema.field(number) != null && schema.field(number).name().equals(name)) {
                return number;
            }
        }
        throw new AssertionError("the schema has no " + name);
    }

    @Test
    void whatIsNoRecordIsRefused() {
        for (String text : new String[] {
            "", "{", "[]", "1", "{\"flow.id\":\"x\"}", LINE.substring(0, LINE.length() - 9), LINE.replace("\"end\"", "\"eend\""),
            LINE.replace("2016-08-28T", "2016-08-48T"), LINE.replace("packets.total\":19", "packets.total\":8"),
            LINE.replace("\"destination.address\"", "\"x\"")
        }) {
            assertThrows(MalformedRecord.class, () -> json(text), text);
        }
    }

    /** Bytes of any kind are a record or a malformed one, never anything else. */
    @Test
    void noiseIsRefused() {
        Random random = new Random(3);
        ProtobufRecord protobuf = new ProtobufRecord();
        JsonRecord json = new JsonRecord();
        byte[] line = LINE.getBytes(StandardCharsets.UTF_8);
        for (int i = 0; i < 20_000; i++) {
            byte[] noise = new byte[random.nextInt(60)];
            random.nextBytes(noise);
            assertThrows(MalformedRecord.class, () -> protobuf.read(noise));
            byte[] changed = line.clone();
            changed[random.nextInt(changed.length)] = (byte) random.nextInt(256);
            try {
                json.read(changed);
            } catch (MalformedRecord e) {
                // As it should be.
            }
        }
    }

    @Test
    void timesAreWrittenAsTheyWereRead() throws Exception {
        for (String text : new String[] {"2016-08-28T14:05:23.665163007Z", "1970-01-01T00:00:00.000000001Z", "2096-02-29T23:59:59.999999999Z"}) {
            assertEquals(text, Times.text(Times.nanos(text)));
        }
    }

    private static final class Message {
        private final ByteArrayOutputStream out = new ByteArrayOutputStream();

        private Message varint(long n) {
            while ((n & ~0x7fL) != 0) {
                out.write((int) (n & 0x7f | 0x80));
                n >>>= 7;
            }
            out.write((int) n);
            return this;
        }

        Message number(int field, long n) {
            return varint(field << 3).varint(n);
        }

        Message fixed(int field, long n) {
            varint(field << 3 | 1);
            for (int i = 0; i < 8; i++) {
                out.write((int) (n >>> (8 * i)) & 0xff);
            }
            return this;
        }

        Message text(int field, String text) {
            byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
            varint(field << 3 | 2).varint(bytes.length);
            out.writeBytes(bytes);
            return this;
        }

        Message inner(int field, Message message) {
            varint(field << 3 | 2).varint(message.out.size());
            out.writeBytes(message.bytes());
            return this;
        }

        byte[] bytes() {
            return out.toByteArray();
        }
    }
}
