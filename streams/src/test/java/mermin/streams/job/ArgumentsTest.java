package mermin.streams.job;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.time.Duration;
import java.util.Map;
import org.junit.jupiter.api.Test;

class ArgumentsTest {
    private static String error(String... words) {
        return assertThrows(ArgumentError.class, () -> Arguments.of(words)).getMessage();
    }

    @Test
    void whatIsGivenCountsAndTheRestHasDefaults() throws Exception {
        Arguments a = Arguments.of("--brokers", "b:1", "--wait", "500ms", "--kafka", "security.protocol=SSL", "--kafka", "a=b=c");
        assertEquals("b:1", a.text("brokers"));
        assertEquals(Duration.ofMillis(500), a.duration("wait"));
        assertEquals(Duration.ofHours(1), a.duration("part"));
        assertEquals(Map.of("security.protocol", "SSL", "a", "b=c"), a.kafka());
    }

    @Test
    void errorsSayWhatToType() {
        assertEquals("--brokers is missing: write --brokers host:port", error());
        assertEquals("there is no option --broker; did you mean --brokers?", error("--broker", "b:1"));
        assertEquals("--brokers needs a value", error("--brokers"));
        assertEquals("--wait 5: no duration; write 500ms, 30s, 15m or 1h", error("--brokers", "b:1", "--wait", "5"));
        assertEquals("--start now: one of committed, earliest, latest", error("--brokers", "b:1", "--start", "now"));
        assertTrue(error("--brokers", "b:1", "--kafka", "x").contains("name=value"));
        assertTrue(error("--brokers", "b:1", "--silence", "1s").contains("--wait"));
    }

    @Test
    void textsWithQuotesStayInsideTheirStatement() throws Exception {
        Arguments a = Arguments.of("--brokers", "b:1", "--kafka", "sasl.jaas.config=x username='u';");
        assertTrue(Connectors.of(a).get("traffic-topic").contains("'x username=''u'';'"));
    }
}
