package mermin.streams.record;

/** Why a record was written ({@code flow.event}). */
public enum Event {
    START,
    UPDATE,
    END
}
