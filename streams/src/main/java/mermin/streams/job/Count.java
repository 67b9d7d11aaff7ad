package mermin.streams.job;

import org.apache.flink.util.OutputTag;

/** Something out of the ordinary that happened: it becomes a row of the counts, and the totals of a minute are there to read. */
public class Count {
    public static final OutputTag<Count> TAG = new OutputTag<>("counts") {};

    public String name;
    public long n;
    /** Milliseconds of event time, ahead of the watermark. */
    public long at;

    public Count() {}

    public Count(String name, long n, long at) {
        this.name = name;
        this.n = n;
        this.at = at;
    }
}
