package mermin.streams.job;

/** Something on the command line that can't be. */
public final class ArgumentError extends Exception {
    ArgumentError(String what) {
        super(what);
    }
}
