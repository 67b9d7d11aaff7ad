package mermin.streams.job;

import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.apache.flink.table.api.StatementSet;
import org.apache.flink.table.api.TableEnvironment;

/** The statements of one of the job's SQL files: comments of whole lines, statements that end with {@code ;} at a line's end. */
final class SqlFile {
    private final List<String> statements;

    private SqlFile(List<String> statements) {
        this.statements = statements;
    }

    static SqlFile of(String name, Map<String, String> values) {
        StringBuilder text = new StringBuilder();
        try (InputStream in = SqlFile.class.getResourceAsStream("/sql/" + name)) {
            if (in == null) {
                throw new IllegalStateException("the jar has no sql/" + name);
            }
            new String(in.readAllBytes(), StandardCharsets.UTF_8).lines()
                    .filter(line -> !line.startsWith("--"))
                    .forEach(line -> text.append(line).append('\n'));
        } catch (IOException e) {
            throw new IllegalStateException("sql/" + name + " can't be read from the jar", e);
        }
        List<String> statements = new ArrayList<>();
        for (String statement : text.toString().split(";\n")) {
            String filled = statement.strip();
            for (Map.Entry<String, String> value : values.entrySet()) {
                filled = filled.replace("${" + value.getKey() + "}", value.getValue());
            }
            if (!filled.isEmpty()) {
                statements.add(filled);
            }
        }
        return new SqlFile(statements);
    }

    /** Definitions at once; what is to be inserted becomes part of the set. */
    void run(TableEnvironment tables, StatementSet inserts) {
        for (String statement : statements) {
            if (statement.startsWith("INSERT ")) {
                inserts.addInsertSql(statement);
            } else {
                tables.executeSql(statement);
            }
        }
    }
}
