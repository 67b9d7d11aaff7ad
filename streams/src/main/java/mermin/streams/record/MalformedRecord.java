package mermin.streams.record;

/** A message that is no flow record. It is counted, and the stream goes on. */
public final class MalformedRecord extends Exception {
    public MalformedRecord(String what) {
        super(what);
    }

    MalformedRecord(String what, Throwable why) {
        super(what, why);
    }
}
