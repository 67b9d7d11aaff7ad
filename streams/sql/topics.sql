-- Results as topics. ${…} is filled in from the command line; columns are the keys of the JSON lines.
-- bytes are IP bytes, frame_bytes bytes on the link, as in flow records.

CREATE TEMPORARY TABLE traffic (
  `window.start` TIMESTAMP_LTZ(3),
  `window.end` TIMESTAMP_LTZ(3),
  `timing` STRING,
  `source.workload.kind` STRING,
  `source.workload.namespace` STRING,
  `source.workload.name` STRING,
  `destination.workload.kind` STRING,
  `destination.workload.namespace` STRING,
  `destination.workload.name` STRING,
  `flow.packets` BIGINT,
  `flow.bytes` BIGINT,
  `flow.frame_bytes` BIGINT,
  `flow.reverse.packets` BIGINT,
  `flow.reverse.bytes` BIGINT,
  `flow.reverse.frame_bytes` BIGINT,
  `flow.packets.estimate` BIGINT,
  `flow.bytes.estimate` BIGINT,
  `flow.reverse.packets.estimate` BIGINT,
  `flow.reverse.bytes.estimate` BIGINT,
  `records` BIGINT,
  `flows.begun` BIGINT,
  `flows.ended` BIGINT
) WITH (
  ${traffic-topic}
);

CREATE TEMPORARY TABLE conversations (
  `conversation.id` STRING,
  `conversation.event` STRING,
  `conversation.part` INT,
  `conversation.complete` BOOLEAN,
  `flow.community_id` STRING,
  `flow.start_time` STRING,
  `flow.end_time` STRING,
  `network.type` STRING,
  `network.transport` STRING,
  `network.transport.number` INT,
  `source.address` STRING,
  `source.port` INT,
  `destination.address` STRING,
  `destination.port` INT,
  `icmp.type` INT,
  `icmp.code` INT,
  `source.workload.kind` STRING,
  `source.workload.namespace` STRING,
  `source.workload.name` STRING,
  `destination.workload.kind` STRING,
  `destination.workload.namespace` STRING,
  `destination.workload.name` STRING,
  `flow.packets` BIGINT,
  `flow.bytes` BIGINT,
  `flow.frame_bytes` BIGINT,
  `flow.packets.estimate` BIGINT,
  `flow.bytes.estimate` BIGINT,
  `flow.packets.lost` BIGINT,
  `flow.reverse.packets` BIGINT,
  `flow.reverse.bytes` BIGINT,
  `flow.reverse.frame_bytes` BIGINT,
  `flow.reverse.packets.estimate` BIGINT,
  `flow.reverse.bytes.estimate` BIGINT,
  `flow.reverse.packets.lost` BIGINT,
  `hops` ARRAY<ROW<`node` STRING, `agent.id` STRING, `interface` STRING, `hook` STRING, `tuple` INT, `parallel` BOOLEAN, `ttl` INT,
    `packets` BIGINT, `bytes` BIGINT, `frame_bytes` BIGINT, `packets.estimate` BIGINT, `bytes.estimate` BIGINT,
    `lost.packets` BIGINT, `lost.bytes` BIGINT>>,
  `hops.ordered_by` STRING,
  `reverse.hops` ARRAY<ROW<`node` STRING, `agent.id` STRING, `interface` STRING, `hook` STRING, `tuple` INT, `parallel` BOOLEAN, `ttl` INT,
    `packets` BIGINT, `bytes` BIGINT, `frame_bytes` BIGINT, `packets.estimate` BIGINT, `bytes.estimate` BIGINT,
    `lost.packets` BIGINT, `lost.bytes` BIGINT>>,
  `reverse.hops.ordered_by` STRING,
  `nat.tuples` ARRAY<ROW<`flow.community_id` STRING, `source.address` STRING, `source.port` INT, `destination.address` STRING,
    `destination.port` INT>>,
  `nat.kind` STRING,
  `nat.matched_by` STRING,
  `nat.ambiguous` BOOLEAN
) WITH (
  'key.format' = 'raw',
  'key.fields' = 'flow.community_id',
  ${conversations-topic}
);

CREATE TEMPORARY TABLE counts (
  `window.start` TIMESTAMP_LTZ(3),
  `window.end` TIMESTAMP_LTZ(3),
  `name` STRING,
  `count` BIGINT
) WITH (
  ${counts-topic}
);

INSERT INTO traffic SELECT * FROM traffic_rows;
INSERT INTO conversations SELECT * FROM conversation_rows;
INSERT INTO counts SELECT * FROM count_rows;
