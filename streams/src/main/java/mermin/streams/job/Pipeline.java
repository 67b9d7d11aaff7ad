package mermin.streams.job;

import mermin.streams.conversation.Conversation;
import mermin.streams.conversation.Conversations;
import mermin.streams.conversation.Patience;
import mermin.streams.duplicates.Duplicates;
import mermin.streams.duplicates.DuplicatesOperator;
import mermin.streams.nat.Match;
import mermin.streams.nat.NatJoin;
import mermin.streams.record.FlowRecord;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.DataStreamUtils;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;

/**
 * From records to what results are made of; sources and sinks are put around it.
 *
 * @param records each once, with the time at which it counts
 * @param conversations joined over agents and NATs
 * @param counts what was out of the ordinary
 */
record Pipeline(DataStream<FlowRecord> records, DataStream<Conversation> conversations, DataStream<Count> counts) {
    static Pipeline of(DataStream<FlowRecord> input, Arguments a) throws ArgumentError {
        long memory = a.duration("duplicates-within").toMillis();
        Patience patience = Patience.of(
                a.duration("wait"), a.duration("silence"), a.duration("part"), a.duration("duplicates-within"), a.duration("clocks"));
        long natWait = a.duration("nat-wait").toMillis();
        long clocks = a.duration("clocks").toNanos();

        SingleOutputStreamOperator<FlowRecord> records = input
                .keyBy(record -> record.communityId)
                .transform("duplicates", Types.POJO(FlowRecord.class),
                        new DuplicatesOperator(new Duplicates(memory, a.duration("ahead").toMillis())))
                .uid("duplicates");
        // The same key at the same place: nothing has to go over the network again.
        SingleOutputStreamOperator<Conversation> seen = DataStreamUtils
                .reinterpretAsKeyedStream(records, record -> record.communityId)
                .process(new Conversations(patience))
                .name("conversations").uid("conversations");
        DataStream<Count> counts = records.getSideOutput(Count.TAG).union(seen.getSideOutput(Count.TAG));
        SingleOutputStreamOperator<Conversation> joined = seen;
        for (Nat nat : NATS) {
            joined = nat.over(joined, natWait, clocks);
            counts = counts.union(joined.getSideOutput(Count.TAG));
        }
        return new Pipeline(records, joined, counts);
    }

    private static final Nat[] NATS = {
        new Nat(Match.Kind.SAID_BEFORE, "conntrack-nat-before"),
        new Nat(Match.Kind.SAID_BEHIND, "conntrack-nat-behind"),
        new Nat(Match.Kind.DESTINATION, "destination-nat"),
        new Nat(Match.Kind.SOURCE, "source-nat"),
    };

    /** An operator that joins the sides of NATs, by its name. */
    private record Nat(Match.Kind kind, String name) {
        SingleOutputStreamOperator<Conversation> over(DataStream<Conversation> conversations, long wait, long clocks) {
            return conversations.keyBy(kind::key).process(new NatJoin(kind, wait, clocks)).name(name).uid(name);
        }
    }
}
