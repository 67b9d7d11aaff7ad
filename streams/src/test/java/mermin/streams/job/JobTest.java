package mermin.streams.job;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.time.Instant;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import mermin.streams.record.Event;
import mermin.streams.record.FlowRecord;
import mermin.streams.record.Flows;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.runtime.testutils.MiniClusterResourceConfiguration;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;
import org.apache.flink.test.util.MiniClusterWithClientResource;
import org.apache.flink.types.Row;
import org.apache.flink.util.CloseableIterator;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/** The whole job but for Kafka, on a cluster of two slots in this process. */
class JobTest {
    private static final long START = 1_700_000_040_000L;
    private static final MiniClusterWithClientResource CLUSTER = new MiniClusterWithClientResource(
            new MiniClusterResourceConfiguration.Builder().setNumberTaskManagers(1).setNumberSlotsPerTaskManager(2).build());

    @BeforeAll
    static void start() throws Exception {
        CLUSTER.before();
    }

    @AfterAll
    static void stop() {
        CLUSTER.after();
    }

    private static StreamExecutionEnvironment flink() {
        Configuration configuration = new Configuration();
        // Every type that goes over the network or into state has a serializer of its own: none goes by reflection.
        configuration.setString("pipeline.generic-types", "false");
        StreamExecutionEnvironment flink = StreamExecutionEnvironment.getExecutionEnvironment(configuration);
        flink.setParallelism(2);
        return flink;
    }

    /** Rows of a view, of records that come in this order. */
    private static List<Row> rows(List<FlowRecord> records, String view) throws Exception {
        StreamExecutionEnvironment flink = flink();
        StreamTableEnvironment tables = StreamTableEnvironment.create(flink);
        // One source, so that the order is this one; a watermark with each record, so that it moves on at once.
        var input = flink.fromData(Types.POJO(FlowRecord.class), records.toArray(FlowRecord[]::new)).setParallelism(1)
                .assignTimestampsAndWatermarks(WatermarkStrategy.<FlowRecord>forGenerator(context -> new EachRecord())
                        .withTimestampAssigner((r, t) -> r.countedAt)).setParallelism(1);
        Results.views(Pipeline.of(input, Arguments.of("--brokers", "none:1")), tables);
        List<Row> rows = new ArrayList<>();
        try (CloseableIterator<Row> each = tables.executeSql("SELECT * FROM " + view).collect()) {
            each.forEachRemaining(rows::add);
        }
        return rows;
    }

    /** Behind the latest record by 10 s. */
    private static final class EachRecord implements org.apache.flink.api.common.eventtime.WatermarkGenerator<FlowRecord> {
        private long latest = Long.MIN_VALUE + 10_001;

        @Override
        public void onEvent(FlowRecord r, long time, org.apache.flink.api.common.eventtime.WatermarkOutput out) {
            latest = Math.max(latest, time);
            out.emitWatermark(new org.apache.flink.api.common.eventtime.Watermark(latest - 10_000));
        }

        @Override
        public void onPeriodicEmit(org.apache.flink.api.common.eventtime.WatermarkOutput out) {}
    }

    /** Out of order, late by minutes, twice: each minute's rows add up to the records of that minute. */
    @Test
    void everyMinuteIsExact() throws Exception {
        Random random = new Random(5);
        List<FlowRecord> records = new ArrayList<>();
        Map<Instant, long[]> wanted = new HashMap<>();
        for (int i = 0; i < 400; i++) {
            long begin = START + i * 1000L;
            Flows flow = new Flows("flow-" + i, "n", begin);
            flow.tuple.sourceAddress = "10.0.0." + i % 3;
            for (int n = 0; n < 3; n++) {
                FlowRecord r = flow.next(n == 2 ? Event.END : Event.UPDATE, begin + n * 20_000, 1 + random.nextInt(9), random.nextInt(9));
                long[] sum = wanted.computeIfAbsent(minute(r), key -> new long[3]);
                sum[0] += r.forward.delta.packets;
                sum[1] += r.reverse.delta.bytes;
                sum[2]++;
                records.add(r);
            }
        }
        // What goes out late goes far back in the line; neighbours change places.
        List<FlowRecord> sent = new ArrayList<>();
        List<FlowRecord> late = new ArrayList<>();
        for (FlowRecord r : records) {
            (random.nextInt(20) == 0 ? late : sent).add(r);
        }
        for (int i = 0; i + 4 < sent.size(); i += 4) {
            java.util.Collections.shuffle(sent.subList(i, i + 4), random);
        }
        late.forEach(r -> sent.add(sent.size() / 2 + random.nextInt(sent.size() / 2), r));
        int twice = 0;
        for (FlowRecord r : records) {
            if (random.nextInt(10) == 0) {
                sent.add(sent.indexOf(r) + 1 + random.nextInt(sent.size() - sent.indexOf(r)), Flows.copy(r));
                twice++;
            }
        }
        Map<Instant, long[]> got = new HashMap<>();
        long corrected = 0;
        for (Row row : rows(sent, "traffic_rows")) {
            long[] sum = got.computeIfAbsent((Instant) row.getField(0), key -> new long[3]);
            sum[0] += (Long) row.getField(9);
            sum[1] += (Long) row.getField(13);
            sum[2] += (Long) row.getField(19);
            corrected += row.getField(2) == null ? 0 : (Long) row.getField(19);
        }
        assertEquals(texts(wanted), texts(got));
        assertTrue(corrected > 10, corrected + " records were late");
        long[] counted = new long[2];
        for (Row row : rows(sent, "count_rows")) {
            switch ((String) row.getField(2)) {
                case "duplicate" -> counted[0] += (Long) row.getField(3);
                case "late" -> counted[1] += (Long) row.getField(3);
                default -> throw new AssertionError(row);
            }
        }
        assertEquals(List.of((long) twice, corrected), List.of(counted[0], counted[1]));
    }

    private static Instant minute(FlowRecord r) {
        return Instant.ofEpochMilli(r.endMillis() - Math.floorMod(r.endMillis(), 60_000L));
    }

    private static Map<Instant, String> texts(Map<Instant, long[]> sums) {
        Map<Instant, String> texts = new java.util.TreeMap<>();
        sums.forEach((key, value) -> texts.put(key, java.util.Arrays.toString(value)));
        return texts;
    }

    @Test
    void viewsOfTwoAgentsBecomeOneRow() throws Exception {
        List<FlowRecord> records = new ArrayList<>();
        for (int i = 0; i < 50; i++) {
            for (int node = 0; node < 2; node++) {
                Flows flow = new Flows("flow-" + i + "-" + node, "node-" + node, START + i * 100 + node);
                flow.tuple.sourcePort = 1000 + i;
                flow.ttl = 64 - node;
                flow.reverseTtl = 63 + node;
                records.add(flow.next(Event.END, START + 5000 + i * 100, 10 - node, 5));
            }
        }
        List<Row> rows = rows(records, "conversation_rows");
        assertEquals(50, rows.size());
        for (Row row : rows) {
            assertEquals(10L, row.getField("packets"));
            assertEquals(1L, row.getField("lost"));
            Row[] hops = (Row[]) row.getField("hops");
            assertEquals(List.of("node-0", "node-1"), List.of(hops[0].getField(0), hops[1].getField(0)));
            assertEquals("ttl", row.getField("hops_by"));
        }
    }

    /** Only the router says it, of one side; and the server's agent came when the connection was open, so it took it the other way. */
    @Test
    void sidesThatOneRouterNamesBecomeOneRow() throws Exception {
        List<FlowRecord> records = new ArrayList<>();
        for (int i = 0; i < 50; i++) {
            Flows asked = new Flows("asked-" + i, "router", START + i * 100);
            asked.tuple.sourcePort = 1000 + i;
            Flows answered = new Flows("answered-" + i, "server", START + i * 100 + 2000);
            answered.tuple.sourceAddress = "10.2.0.9";
            answered.tuple.sourcePort = 8080;
            answered.tuple.destinationAddress = "192.0.2.1";
            answered.tuple.destinationPort = 60_000 + i;
            answered.doubt = 5;
            FlowRecord there = asked.next(Event.END, START + 5000 + i * 100, 10, 8);
            FlowRecord here = answered.next(Event.END, START + 5000 + i * 100, 7, 9);
            if (i % 2 == 0) {
                there.translatedTo = answered.tuple.reversed();
            } else {
                here.translatedFrom = asked.tuple.reversed();
            }
            records.add(there);
            records.add(here);
        }
        List<Row> rows = rows(records, "conversation_rows");
        assertEquals(50, rows.size());
        for (Row row : rows) {
            assertEquals(List.of("conntrack", "source and destination", 10L, 1L, 7L),
                    List.of(row.getField("nat_matched_by"), row.getField("nat_kind"), row.getField("packets"), row.getField("lost"),
                            row.getField("reverse_packets")));
            assertEquals(List.of("10.0.0.1", "10.2.0.9"),
                    List.of(row.getField("source_address"), ((Row[]) row.getField("tuples"))[1].getField(3)));
        }
    }

    /** The tables that users see: each statement of each file can be planned, with a broker that is not there. */
    @Test
    void everyStatementCanBePlanned() throws Exception {
        StreamExecutionEnvironment flink = flink();
        StreamTableEnvironment tables = StreamTableEnvironment.create(flink);
        Arguments a = Arguments.of("--brokers", "none:1", "--files", "/none");
        var input = flink.fromData(Types.POJO(FlowRecord.class), new Flows("f", "n", START).next(Event.END, START, 1, 1));
        Results.of(Pipeline.of(input, a), tables, a);
        assertTrue(flink.getStreamGraph(false).getStreamNodes().size() > 10);
        SqlFile.of("views.sql", Map.of()).run(tables, tables.createStatementSet());
        for (String view : new String[] {"traffic_of_minutes", "losses", "rewritten"}) {
            assertTrue(tables.explainSql("SELECT * FROM " + view).contains("Physical"), view);
        }
    }
}
