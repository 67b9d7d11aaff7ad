package mermin.streams.job;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import mermin.streams.record.FlowRecord;
import mermin.streams.record.JsonRecord;
import mermin.streams.record.MalformedRecord;
import mermin.streams.record.ProtobufRecord;
import org.apache.flink.api.common.serialization.DeserializationSchema;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.util.Collector;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.header.Header;

/**
 * Messages of the topic as records, each in the encoding that its header says: agents may be changed one by one. What can't
 * be read becomes a malformed record, so that it is counted behind the source, where counts are exact: a source can't say
 * anything beside its records.
 */
public final class RecordReader implements KafkaRecordDeserializationSchema<FlowRecord> {
    private transient JsonRecord json;
    private transient ProtobufRecord protobuf;

    @Override
    public void open(DeserializationSchema.InitializationContext context) {
        json = new JsonRecord();
        protobuf = new ProtobufRecord();
    }

    @Override
    public void deserialize(ConsumerRecord<byte[], byte[]> message, Collector<FlowRecord> out) throws IOException {
        out.collect(read(message));
    }

    private FlowRecord read(ConsumerRecord<byte[], byte[]> message) {
        try {
            if (message.value() == null) {
                throw new MalformedRecord("no value");
            }
            FlowRecord record = switch (header(message, "encoding")) {
                case "protobuf" -> protobuf.read(message.value());
                // Whoever sends lines without saying so (kcat, a script) may.
                case "json", "" -> json.read(message.value());
                default -> throw new MalformedRecord("an encoding that is not known");
            };
            record.agent = header(message, "agent.id");
            record.node = header(message, "node");
            if (record.node.isEmpty()) {
                // Agents that say no name are told apart by their ids, and those without either are taken for one.
                record.node = record.agent;
            }
            record.countedAt = record.endMillis();
            return record;
        } catch (MalformedRecord e) {
            FlowRecord malformed = new FlowRecord();
            malformed.malformed = true;
            malformed.communityId = "";
            malformed.countedAt = Math.max(message.timestamp(), 0);
            return malformed;
        }
    }

    private static String header(ConsumerRecord<byte[], byte[]> message, String name) {
        Header header = message.headers().lastHeader(name);
        return header == null || header.value() == null ? "" : new String(header.value(), StandardCharsets.UTF_8);
    }

    @Override
    public TypeInformation<FlowRecord> getProducedType() {
        return Types.POJO(FlowRecord.class);
    }
}
