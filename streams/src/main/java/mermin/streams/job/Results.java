package mermin.streams.job;

import java.time.Instant;
import java.util.Map;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.table.api.Schema;
import org.apache.flink.table.api.bridge.java.StreamStatementSet;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;
import org.apache.flink.types.Row;

/** What the pipeline gives as tables, and the SQL files that make results of them. */
final class Results {
    private Results() {}

    /** Results as views, and where they go. */
    static void of(Pipeline pipeline, StreamTableEnvironment tables, Arguments a) {
        StreamStatementSet inserts = tables.createStatementSet();
        Map<String, String> values = Connectors.of(a);
        views(pipeline, tables);
        SqlFile.of("topics.sql", values).run(tables, inserts);
        if (!a.text("files").equals("none")) {
            SqlFile.of("files.sql", values).run(tables, inserts);
        }
        inserts.attachAsDataStream();
    }

    /** {@code traffic_rows}, {@code conversation_rows} and {@code count_rows}. */
    static void views(Pipeline pipeline, StreamTableEnvironment tables) {
        tables.getConfig().set("table.local-time-zone", "UTC");
        view(tables, "flow_records", pipeline.records().map(new TrafficRow()).returns(TrafficRow.TYPE).name("traffic rows"));
        view(tables, "count_events", pipeline.counts()
                .map(count -> Row.of(Instant.ofEpochMilli(count.at), count.name, count.n))
                .returns(Types.ROW_NAMED(new String[] {"counted_at", "name", "n"}, Types.INSTANT, Types.STRING, Types.LONG))
                .name("count rows"));
        tables.createTemporaryView("conversation_rows",
                pipeline.conversations().map(new ConversationRow()).returns(ConversationRow.TYPE).name("conversation rows"));
        SqlFile.of("results.sql", Map.of()).run(tables, tables.createStatementSet());
    }

    /** Windows are over {@code counted_at}, as {@code rowtime}; the operators have seen to it that it is ahead of the watermark. */
    private static void view(StreamTableEnvironment tables, String name, DataStream<Row> rows) {
        tables.createTemporaryView(name, rows, Schema.newBuilder()
                .columnByExpression("rowtime", "CAST(counted_at AS TIMESTAMP_LTZ(3))")
                .watermark("rowtime", "SOURCE_WATERMARK()")
                .build());
    }
}
