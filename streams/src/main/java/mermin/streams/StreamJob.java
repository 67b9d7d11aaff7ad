package mermin.streams;

import mermin.streams.job.Arguments;
import mermin.streams.job.Job;

/** The program: flow records of all agents in, traffic of each minute and conversations out. */
public final class StreamJob {

    private StreamJob() {}

    public static void main(String[] words) throws Exception {
        if (words.length > 0 && (words[0].equals("--help") || words[0].equals("-h"))) {
            System.out.println(Arguments.help());
            return;
        }
        Job.submit(Arguments.of(words));
    }
}
