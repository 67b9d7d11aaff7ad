package mermin.streams;

import java.util.Arrays;
import mermin.streams.job.ArgumentError;
import mermin.streams.job.Arguments;
import mermin.streams.job.Job;

/**
 * The program: flow records of all agents in, traffic of each minute and conversations out.
 *
 * <p>{@code --check} in front of the options says whether they can be, without a cluster and its classes.
 */
public final class StreamJob {
    /** A command line that can't be (sysexits), as of the agent. */
    private static final int USAGE = 64;

    private StreamJob() {}

    public static void main(String[] words) throws Exception {
        String first = words.length > 0 ? words[0] : "";
        switch (first) {
            case "--help", "-h" -> System.out.println(Arguments.help());
            case "--check" -> check(Arrays.copyOfRange(words, 1, words.length));
            default -> Job.submit(Arguments.of(words));
        }
    }

    private static void check(String[] words) {
        try {
            Arguments.of(words);
        } catch (ArgumentError e) {
            System.err.println("error: " + e.getMessage() + "\nhelp: streams/run --help");
            System.exit(USAGE);
        }
    }
}
