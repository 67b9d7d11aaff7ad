package mermin.streams.record;

import java.time.Instant;
import java.time.LocalDate;

/** Times of records: RFC 3339, UTC, nine digits of the second. */
public final class Times {
    private static final long NANOS = 1_000_000_000L;
    private static final int LENGTH = "2026-01-01T00:00:00.000000000Z".length();

    private Times() {}

    /**
     * Nanoseconds since 1970. By hand, because every record has two of them and {@link Instant#parse} takes as long as the rest
     * of the record.
     */
    static long nanos(String text) throws MalformedRecord {
        if (text.length() != LENGTH || text.charAt(LENGTH - 1) != 'Z' || text.charAt(19) != '.' || text.charAt(10) != 'T') {
            throw new MalformedRecord("no time: " + text);
        }
        try {
            long day = LocalDate.of(digits(text, 0, 4), digits(text, 5, 7), digits(text, 8, 10)).toEpochDay();
            long second = digits(text, 11, 13) * 3600L + digits(text, 14, 16) * 60L + digits(text, 17, 19);
            return (day * 86_400L + second) * NANOS + digits(text, 20, 29);
        } catch (java.time.DateTimeException | NumberFormatException e) {
            throw new MalformedRecord("no time: " + text, e);
        }
    }

    private static int digits(String text, int from, int to) {
        return Integer.parseInt(text, from, to, 10);
    }

    /** The other way round. */
    public static String text(long nanos) {
        String seconds = Instant.ofEpochSecond(Math.floorDiv(nanos, NANOS)).toString();
        // Ten digits, so that the first one stands for those that a small number would lack.
        String fraction = Long.toString(NANOS + Math.floorMod(nanos, NANOS));
        return seconds.substring(0, seconds.length() - 1) + '.' + fraction.substring(1) + 'Z';
    }
}
