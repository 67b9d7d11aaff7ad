package mermin.streams.job;

import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** The command line: {@code --name value}, each from {@link #OPTIONS}. */
public final class Arguments {
    /** A name, its default (empty: none), and what it is. */
    private record Option(String name, String standard, String meaning) {}

    private static final List<Option> OPTIONS = List.of(
            new Option("brokers", "", "host:port of one or more brokers, separated by commas (required)"),
            new Option("topic", "mermin.flows", "topic with the flow records of all agents"),
            new Option("group", "mermin-streams", "consumer group, in which the position is told with each checkpoint"),
            new Option("start", "committed", "where to begin without a checkpoint: committed (else earliest), earliest, latest"),
            new Option("bounded", "false", "true: read what is there now, release everything and end"),
            new Option("traffic-topic", "mermin.traffic", "topic for the traffic of each minute"),
            new Option("conversations-topic", "mermin.conversations", "topic for conversations"),
            new Option("counts-topic", "mermin.streams.counts", "topic for counts of late, doubled and unreadable records"),
            new Option("files", "none", "folder (any of Flink's file systems) for the same results as JSON files; none: no files"),
            new Option("transactions", "mermin-streams", "prefix of the transactions' ids: another for each job on a broker"),
            new Option("kafka", "", "client setting for source and sinks as name=value, may come several times"),
            new Option("checkpoints", "10s", "time from checkpoint to checkpoint; results are visible after the next one"),
            new Option("out-of-order", "60s", "how far back a record may reach: the agents' longest idle timeout and what queues take"),
            new Option("idle", "60s", "a partition without records holds nothing up after this"),
            new Option("ahead", "60s", "how far an agent's clock may be ahead"),
            new Option("duplicates-within", "15m", "how long (event time) a flow is remembered, to know what was sent twice"),
            new Option("wait", "90s", "how long (event time) a conversation waits for further agents' records when all flows ended"),
            new Option("silence", "5m", "an agent that says nothing more of a flow for this long counts as one whose flow ended"),
            new Option("part", "1h", "a conversation that lasts longer is released in parts"),
            new Option("clocks", "1s", "by how much clocks of agents may differ"),
            new Option("nat-wait", "30s", "how long (event time) a conversation waits for its other side of a NAT, each of four times"));

    private final Map<String, String> values = new LinkedHashMap<>();
    private final Map<String, String> kafka = new LinkedHashMap<>();

    private Arguments() {}

    /** Reads the command line. */
    public static Arguments of(String... words) throws ArgumentError {
        Arguments a = new Arguments();
        OPTIONS.forEach(option -> a.values.put(option.name, option.standard));
        for (int i = 0; i < words.length; i += 2) {
            String name = words[i].startsWith("--") ? words[i].substring(2) : null;
            if (name == null || !a.values.containsKey(name)) {
                throw new ArgumentError("there is no option " + words[i] + nearest(name));
            }
            if (i + 1 == words.length) {
                throw new ArgumentError(words[i] + " needs a value");
            }
            if (name.equals("kafka")) {
                a.client(words[i + 1]);
            } else {
                a.values.put(name, words[i + 1]);
            }
        }
        a.check();
        return a;
    }

    private void client(String setting) throws ArgumentError {
        int at = setting.indexOf('=');
        if (at < 1) {
            throw new ArgumentError("--kafka " + setting + ": write name=value, as in security.protocol=SSL");
        }
        kafka.put(setting.substring(0, at), setting.substring(at + 1));
    }

    private void check() throws ArgumentError {
        if (text("brokers").isEmpty()) {
            throw new ArgumentError("--brokers is missing: write --brokers host:port");
        }
        for (Option option : OPTIONS) {
            if (option.standard.matches("\\d+[smh]")) {
                duration(option.name);
            }
        }
        if (!List.of("committed", "earliest", "latest").contains(text("start"))) {
            throw new ArgumentError("--start " + text("start") + ": one of committed, earliest, latest");
        }
        if (!List.of("true", "false").contains(text("bounded"))) {
            throw new ArgumentError("--bounded " + text("bounded") + ": true or false");
        }
        if (duration("silence").compareTo(duration("wait")) < 0) {
            throw new ArgumentError("--silence is shorter than --wait: who says nothing would end sooner than who ended");
        }
    }

    private static String nearest(String name) {
        for (Option option : OPTIONS) {
            if (name != null && (option.name.contains(name) || name.contains(option.name))) {
                return "; did you mean --" + option.name + "?";
            }
        }
        return "";
    }

    public String text(String name) {
        String value = values.get(name);
        if (value == null) {
            throw new IllegalArgumentException("no option " + name);
        }
        return value;
    }

    public boolean flag(String name) {
        return text(name).equals("true");
    }

    /** Settings of the Kafka clients. */
    public Map<String, String> kafka() {
        return kafka;
    }

    /** Of a duration, which was checked before. */
    public Duration duration(String name) throws ArgumentError {
        var parts = java.util.regex.Pattern.compile("(\\d{1,9})(ms|s|m|h)").matcher(text(name));
        if (!parts.matches()) {
            throw new ArgumentError("--" + name + " " + text(name) + ": no duration; write 500ms, 30s, 15m or 1h");
        }
        long n = Long.parseLong(parts.group(1));
        return switch (parts.group(2)) {
            case "ms" -> Duration.ofMillis(n);
            case "s" -> Duration.ofSeconds(n);
            case "m" -> Duration.ofMinutes(n);
            default -> Duration.ofHours(n);
        };
    }

    /** What {@code --help} says. */
    public static String help() {
        List<String> lines = new ArrayList<>(List.of("Options:"));
        for (Option option : OPTIONS) {
            String standard = option.standard.isEmpty() ? "" : " [" + option.standard + "]";
            lines.add(String.format("  --%-20s %s%s", option.name, option.meaning, standard));
        }
        return String.join("\n", lines);
    }
}
