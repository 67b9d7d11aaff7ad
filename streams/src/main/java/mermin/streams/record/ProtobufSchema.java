package mermin.streams.record;

import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * The fields of one message of the committed schema ({@code schemas/mermin/flow/v1/flow.proto}), by their numbers.
 *
 * <p>The file itself is in the jar and is read when the job starts. It is generated, so its lines have one form; and each field
 * has the attribute's name as its JSON name, which is what {@link Attributes} goes by. Generated classes would be four
 * thousand lines and a compiler for each platform in the build, for a reader of a hundred lines.
 */
final class ProtobufSchema {
    /** What a field holds, as far as a reader has to know. */
    enum Type { TEXT, NUMBER, HOP, OTHER }

    record Field(String name, Type type) {}

    private static final Pattern LINE =
            Pattern.compile("\\s*(?:optional|repeated)? ?(\\S.*\\S) (\\w+) = (\\d+) \\[json_name = \"([^\"]+)\"\\];");

    private final Map<Integer, Field> fields = new HashMap<>();

    static ProtobufSchema of(String message) {
        ProtobufSchema schema = new ProtobufSchema();
        boolean inside = false;
        for (String line : text().split("\n")) {
            if (line.startsWith("message ")) {
                inside = line.equals("message " + message + " {");
            }
            Matcher field = LINE.matcher(line);
            if (inside && field.matches()) {
                schema.fields.put(Integer.parseInt(field.group(3)), new Field(field.group(4), type(line, field.group(1))));
            }
        }
        if (schema.fields.isEmpty()) {
            throw new IllegalStateException("the jar's flow.proto has no message " + message);
        }
        return schema;
    }

    private static Type type(String line, String type) {
        return switch (type) {
            case "string" -> line.contains("repeated ") ? Type.OTHER : Type.TEXT;
            case "uint32", "uint64", "fixed64", "bool" -> Type.NUMBER;
            case "Hop" -> Type.HOP;
            default -> Type.OTHER;
        };
    }

    private static String text() {
        try (InputStream in = ProtobufSchema.class.getResourceAsStream("/schema/flow.proto")) {
            if (in == null) {
                throw new IllegalStateException("the jar has no schema/flow.proto: build it in a whole tree");
            }
            return new String(in.readAllBytes(), StandardCharsets.UTF_8);
        } catch (IOException e) {
            throw new IllegalStateException("flow.proto can't be read from the jar", e);
        }
    }

    /** Null for a number that this version doesn't know: a newer agent's. */
    Field field(int number) {
        return fields.get(number);
    }
}
