package mermin.streams.record;

import java.util.Map;

/**
 * Attributes by their names, whichever encoding they came in: the one place that knows what {@code docs/reference/records.md}
 * calls what. Names that the job has no use for are passed over.
 */
final class Attributes {
    private static final Map<String, Workload.Kind> OWNERS = Map.ofEntries(
            Map.entry("k8s.deployment.name", Workload.Kind.DEPLOYMENT),
            Map.entry("k8s.statefulset.name", Workload.Kind.STATEFULSET),
            Map.entry("k8s.daemonset.name", Workload.Kind.DAEMONSET),
            Map.entry("k8s.cronjob.name", Workload.Kind.CRONJOB),
            Map.entry("k8s.job.name", Workload.Kind.JOB),
            Map.entry("k8s.replicaset.name", Workload.Kind.REPLICASET),
            Map.entry("k8s.pod.name", Workload.Kind.POD),
            Map.entry("k8s.service.name", Workload.Kind.SERVICE),
            Map.entry("k8s.node.name", Workload.Kind.NODE),
            Map.entry("name", Workload.Kind.NAME));

    private Attributes() {}

    static void text(FlowRecord r, String name, String value) throws MalformedRecord {
        switch (name) {
            case "flow.id" -> r.flowId = value;
            case "flow.community_id" -> r.communityId = value;
            case "flow.event" -> r.event = switch (value) {
                case "start" -> Event.START;
                case "update" -> Event.UPDATE;
                case "end" -> Event.END;
                default -> throw new MalformedRecord("no flow.event: " + value);
            };
            case "flow.start_time" -> r.startTime = Times.nanos(value);
            case "flow.end_time" -> r.endTime = Times.nanos(value);
            case "flow.initiator" -> r.doubt = switch (value) {
                case "syn" -> 0;
                case "syn_ack" -> 1;
                case "icmp request" -> 2;
                case "multicast" -> 3;
                case "service port" -> 4;
                default -> 5;
            };
            case "flow.direction" -> r.role = value;
            // Attributes have no order: of these the other tuple is made when all were read, see translation.
            case "flow.nat.stage" -> r.natStage = value;
            case "source.nat.ip" -> r.natSource = value;
            case "destination.nat.ip" -> r.natDestination = value;
            case "network.type" -> r.tuple.networkType = value;
            case "network.transport" -> r.tuple.transport = value;
            case "network.interface.name" -> r.interfaceName = value;
            case "network.interface.hook" -> r.hook = value;
            default -> {
                if (name.startsWith("source.")) {
                    if (name.equals("source.address")) {
                        r.tuple.sourceAddress = value;
                    }
                    ownedBy(r.source, name.substring("source.".length()), value);
                } else if (name.startsWith("destination.")) {
                    if (name.equals("destination.address")) {
                        r.tuple.destinationAddress = value;
                    }
                    ownedBy(r.destination, name.substring("destination.".length()), value);
                }
            }
        }
    }

    private static void ownedBy(Workload end, String name, String value) {
        if (name.equals("address")) {
            end.offer(Workload.Kind.ADDRESS, value);
        } else if (name.equals("k8s.namespace.name")) {
            end.namespace = value;
            end.offer(Workload.Kind.NAMESPACE, value);
        } else {
            Workload.Kind kind = OWNERS.get(name);
            if (kind != null) {
                end.offer(kind, value);
            }
        }
    }

    static void number(FlowRecord r, String name, long value) {
        switch (name) {
            case "flow.start_time" -> r.startTime = value;
            case "flow.end_time" -> r.endTime = value;
            case "network.transport.number" -> r.tuple.protocol = (int) value;
            case "source.port" -> r.tuple.sourcePort = (int) value;
            case "destination.port" -> r.tuple.destinationPort = (int) value;
            case "source.nat.port" -> r.natSourcePort = (int) value;
            case "destination.nat.port" -> r.natDestinationPort = (int) value;
            case "icmp.type" -> r.tuple.icmpType = (int) value;
            case "icmp.code" -> r.tuple.icmpCode = (int) value;
            default -> {
                if (name.startsWith("flow.reverse.")) {
                    counter(r.reverse, name.substring("flow.reverse.".length()), value);
                } else if (name.startsWith("flow.")) {
                    counter(r.forward, name.substring("flow.".length()), value);
                }
            }
        }
    }

    private static void counter(Direction d, String name, long value) {
        switch (name) {
            case "packets.delta" -> d.delta.packets = value;
            case "packets.total" -> d.total.packets = value;
            case "bytes.delta" -> d.delta.bytes = value;
            case "bytes.total" -> d.total.bytes = value;
            case "frame_bytes.delta" -> d.delta.frameBytes = value;
            case "frame_bytes.total" -> d.total.frameBytes = value;
            case "packets.estimate" -> estimate(d).packets = value;
            case "bytes.estimate" -> estimate(d).bytes = value;
            case "frame_bytes.estimate" -> estimate(d).frameBytes = value;
            case "ttl.max" -> d.ttl = (int) value;
            default -> { }
        }
    }

    private static Counts estimate(Direction d) {
        if (d.estimate == null) {
            d.estimate = new Counts();
        }
        return d.estimate;
    }

    /** To be called when all was read. */
    static void check(FlowRecord r) throws MalformedRecord {
        if (r.flowId == null || r.communityId == null || r.event == null || r.endTime == 0
                || r.tuple.sourceAddress == null || r.tuple.destinationAddress == null) {
            throw new MalformedRecord("one of flow.id, flow.community_id, flow.event, flow.end_time and the two addresses is missing");
        }
        if (isWrong(r.forward) || isWrong(r.reverse)) {
            throw new MalformedRecord("a total is less than its delta, or a count is negative");
        }
        translation(r);
        r.source.settle();
        r.destination.settle();
    }

    /** The other tuple is the record's own, but for the end that is translated: only of that one it says anything. */
    private static void translation(FlowRecord r) {
        if (r.natStage == null) {
            return;
        }
        Tuple other = r.tuple.reversed().reversed();
        other.sourceAddress = r.natSource == null ? other.sourceAddress : r.natSource;
        other.sourcePort = r.natSourcePort == null ? other.sourcePort : r.natSourcePort;
        other.destinationAddress = r.natDestination == null ? other.destinationAddress : r.natDestination;
        other.destinationPort = r.natDestinationPort == null ? other.destinationPort : r.natDestinationPort;
        if (r.natStage.equals("behind")) {
            r.translatedFrom = other;
        } else {
            r.translatedTo = other;
        }
    }

    private static boolean isWrong(Direction d) {
        Counts before = d.before();
        return d.delta.packets < 0 || d.delta.bytes < 0 || d.delta.frameBytes < 0
                || before.packets < 0 || before.bytes < 0 || before.frameBytes < 0;
    }
}
