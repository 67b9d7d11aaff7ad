package mermin.streams.conversation;

import java.io.Serializable;
import java.time.Duration;

/**
 * How long is waited for what, in milliseconds of event time.
 *
 * @param others after all flows of a conversation have ended: for further agents' records
 * @param silence for an agent that says nothing more of a flow, before it counts as ended
 * @param part the longest that a conversation is held before what there is goes out as a part
 * @param memory how long a released conversation is remembered, to know who comes late to it
 * @param tolerance by how much clocks of agents may differ
 */
public record Patience(long others, long silence, long part, long memory, long tolerance) implements Serializable {
    public static Patience of(Duration others, Duration silence, Duration part, Duration memory, Duration tolerance) {
        return new Patience(others.toMillis(), silence.toMillis(), part.toMillis(), memory.toMillis(), tolerance.toMillis());
    }

    long toleranceNanos() {
        return tolerance * 1_000_000;
    }
}
