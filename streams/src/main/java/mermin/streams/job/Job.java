package mermin.streams.job;

import java.util.Properties;
import mermin.streams.record.FlowRecord;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.KafkaSourceBuilder;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.core.execution.CheckpointingMode;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.consumer.OffsetResetStrategy;

/** Source, pipeline and results, put together and handed to the cluster. */
public final class Job {
    private Job() {}

    /** Hands the job to the cluster. */
    public static void submit(Arguments a) throws Exception {
        StreamExecutionEnvironment flink = StreamExecutionEnvironment.getExecutionEnvironment();
        flink.enableCheckpointing(a.duration("checkpoints").toMillis(), CheckpointingMode.EXACTLY_ONCE);
        // Records go from operator to operator in one piece, and none of ours changes what it was given behind itself.
        flink.getConfig().enableObjectReuse();
        Pipeline pipeline = Pipeline.of(
                flink.fromSource(source(a),
                        EventTime.strategy(a.duration("out-of-order"), a.duration("ahead"), a.duration("idle")), "flow records")
                        .uid("flow-records"),
                a);
        Results.of(pipeline, StreamTableEnvironment.create(flink), a);
        flink.execute("mermin streams");
    }

    private static KafkaSource<FlowRecord> source(Arguments a) {
        Properties client = new Properties();
        client.putAll(a.kafka());
        KafkaSourceBuilder<FlowRecord> source = KafkaSource.<FlowRecord>builder()
                .setBootstrapServers(a.text("brokers"))
                .setTopics(a.text("topic"))
                .setGroupId(a.text("group"))
                .setProperties(client)
                .setProperty("commit.offsets.on.checkpoint", "true")
                .setStartingOffsets(start(a.text("start")))
                .setDeserializer(new RecordReader());
        if (a.flag("bounded")) {
            source.setBounded(OffsetsInitializer.latest());
        }
        return source.build();
    }

    // The connector has no other way to say what counts where nothing was committed.
    @SuppressWarnings("deprecation")
    private static OffsetsInitializer start(String where) {
        return switch (where) {
            case "earliest" -> OffsetsInitializer.earliest();
            case "latest" -> OffsetsInitializer.latest();
            default -> OffsetsInitializer.committedOffsets(OffsetResetStrategy.EARLIEST);
        };
    }
}
