package mermin.streams.record;

/** Whether a record came in time for its minute. */
public enum Timing {
    ON_TIME,
    /** Its minute was closed: a correction. */
    LATE,
    /** It is from the future by more than clocks may differ: counted now, as a correction. */
    AHEAD;

    public String text() {
        return name().toLowerCase(java.util.Locale.ROOT);
    }
}
