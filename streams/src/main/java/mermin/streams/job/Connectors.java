package mermin.streams.job;

import java.util.LinkedHashMap;
import java.util.Map;
import java.util.stream.Collectors;

/** Options of the tables in {@code topics.sql} and {@code files.sql}. */
final class Connectors {
    /** Kafka's brokers allow 15 minutes at most unless told otherwise; it has to be longer than a job may be down. */
    private static final String TRANSACTION_TIMEOUT = "900000";

    private Connectors() {}

    /** Values for the placeholders of the SQL files. */
    static Map<String, String> of(Arguments a) {
        Map<String, String> values = new LinkedHashMap<>();
        for (String table : new String[] {"traffic", "conversations", "counts"}) {
            values.put(table + "-topic", text(topic(a, table)));
            values.put(table + "-files", text(files(a, table)));
        }
        return values;
    }

    private static Map<String, String> topic(Arguments a, String table) {
        Map<String, String> options = json("value.");
        options.put("connector", "kafka");
        options.put("topic", a.text(table + "-topic"));
        options.put("properties.bootstrap.servers", a.text("brokers"));
        options.put("properties.transaction.timeout.ms", TRANSACTION_TIMEOUT);
        options.put("properties.compression.type", "lz4");
        // The job itself only writes; with this the same definition can be read.
        options.put("scan.startup.mode", "earliest-offset");
        a.kafka().forEach((name, value) -> options.put("properties." + name, value));
        options.put("sink.delivery-guarantee", "exactly-once");
        options.put("sink.transactional-id-prefix", a.text("transactions") + "-" + table);
        return options;
    }

    private static Map<String, String> files(Arguments a, String table) {
        Map<String, String> options = json("");
        options.put("connector", "filesystem");
        options.put("path", a.text("files") + "/" + table);
        options.put("sink.rolling-policy.rollover-interval", "5 min");
        options.put("sink.rolling-policy.check-interval", "1 min");
        return options;
    }

    private static Map<String, String> json(String prefix) {
        Map<String, String> options = new LinkedHashMap<>();
        String format = prefix.isEmpty() ? "json." : prefix + "json.";
        options.put(prefix + "format", "json");
        options.put(format + "timestamp-format.standard", "ISO-8601");
        // As in records: what is unknown has no key.
        options.put(format + "encode.ignore-null-fields", "true");
        return options;
    }

    private static String text(Map<String, String> options) {
        return options.entrySet().stream()
                .map(option -> "'" + quoted(option.getKey()) + "' = '" + quoted(option.getValue()) + "'")
                .collect(Collectors.joining(",\n  "));
    }

    private static String quoted(String text) {
        return text.replace("'", "''");
    }
}
