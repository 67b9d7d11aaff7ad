package mermin.streams.record;

import java.io.IOException;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonFactory;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonParser;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonToken;

/** A record from its JSON line. Token by token: a tree of eighty nodes, of which thirty are wanted, costs twice as much. */
public final class JsonRecord {
    private final JsonFactory factory = new JsonFactory();

    public FlowRecord read(byte[] line) throws MalformedRecord {
        FlowRecord record = new FlowRecord();
        try (JsonParser json = factory.createParser(line)) {
            if (json.nextToken() != JsonToken.START_OBJECT) {
                throw new MalformedRecord("no object");
            }
            while (json.nextToken() == JsonToken.FIELD_NAME) {
                attribute(record, json);
            }
            if (json.currentToken() != JsonToken.END_OBJECT) {
                throw new MalformedRecord("the object does not end");
            }
        } catch (IOException e) {
            throw new MalformedRecord("no JSON", e);
        }
        Attributes.check(record);
        return record;
    }

    private static void attribute(FlowRecord record, JsonParser json) throws IOException, MalformedRecord {
        String name = json.currentName();
        switch (json.nextToken()) {
            case VALUE_STRING -> Attributes.text(record, name, json.getText());
            case VALUE_NUMBER_INT -> Attributes.number(record, name, json.getLongValue());
            case START_ARRAY -> {
                switch (name) {
                    case "flow.hops" -> hops(record.forward, json);
                    case "flow.reverse.hops" -> hops(record.reverse, json);
                    default -> json.skipChildren();
                }
            }
            default -> json.skipChildren();
        }
    }

    private static void hops(Direction direction, JsonParser json) throws IOException, MalformedRecord {
        while (json.nextToken() == JsonToken.START_OBJECT) {
            Point point = new Point();
            while (json.nextToken() == JsonToken.FIELD_NAME) {
                String name = json.currentName();
                json.nextToken();
                switch (name) {
                    case "interface" -> point.interfaceName = json.getText();
                    case "hook" -> point.hook = json.getText();
                    case "counted" -> point.counted = json.getBooleanValue();
                    case "packets" -> point.counts.packets = json.getLongValue();
                    case "bytes" -> point.counts.bytes = json.getLongValue();
                    case "frame_bytes" -> point.counts.frameBytes = json.getLongValue();
                    default -> json.skipChildren();
                }
            }
            direction.hops.add(point);
        }
        if (json.currentToken() != JsonToken.END_ARRAY) {
            throw new MalformedRecord("hops are no list of objects");
        }
    }
}
