package mermin.streams.duplicates;

import mermin.streams.record.FlowRecord;
import org.apache.flink.streaming.api.operators.KeyedProcessOperator;
import org.apache.flink.streaming.api.watermark.Watermark;

/**
 * {@link Duplicates} as an operator that tells it each watermark. A function hears of the watermark only with a record, and
 * where a checkpoint is taken after one that no record followed, it would remember an earlier one than the windows behind.
 */
public final class DuplicatesOperator extends KeyedProcessOperator<String, FlowRecord, FlowRecord> {
    private static final long serialVersionUID = 1;

    private final Duplicates duplicates;

    public DuplicatesOperator(Duplicates duplicates) {
        super(duplicates);
        this.duplicates = duplicates;
    }

    @Override
    public void processWatermark(Watermark mark) throws Exception {
        duplicates.passed(mark.getTimestamp());
        super.processWatermark(mark);
    }
}
