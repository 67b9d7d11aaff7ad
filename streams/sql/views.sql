-- For users: what can be asked of the results, in any Flink SQL session. Not a part of the job.
--
-- Run topics.sql without its inserts first, each ${…} replaced by the options of your broker, for instance
--   'connector' = 'kafka', 'topic' = 'mermin.traffic', 'properties.bootstrap.servers' = '…', 'format' = 'json',
--   'json.timestamp-format.standard' = 'ISO-8601', 'scan.startup.mode' = 'earliest-offset',
--   'properties.isolation.level' = 'read_committed'

-- Traffic of each minute with its corrections: what late records added is in it.
CREATE TEMPORARY VIEW traffic_of_minutes AS
SELECT
  `window.start`,
  `source.workload.namespace`,
  `source.workload.kind`,
  `source.workload.name`,
  `destination.workload.namespace`,
  `destination.workload.kind`,
  `destination.workload.name`,
  SUM(`flow.packets`) AS `flow.packets`,
  SUM(`flow.bytes`) AS `flow.bytes`,
  SUM(`flow.reverse.packets`) AS `flow.reverse.packets`,
  SUM(`flow.reverse.bytes`) AS `flow.reverse.bytes`,
  SUM(`flows.begun`) AS `flows.begun`,
  SUM(`flows.ended`) AS `flows.ended`
FROM traffic
GROUP BY
  `window.start`,
  `source.workload.namespace`,
  `source.workload.kind`,
  `source.workload.name`,
  `destination.workload.namespace`,
  `destination.workload.kind`,
  `destination.workload.name`;

-- Where packets were lost: a row for each hop that has less than the one before it, there and back.
CREATE TEMPORARY VIEW losses AS
SELECT
  'there' AS `direction`,
  `conversation.id`,
  `flow.start_time`,
  `source.address`,
  `destination.address`,
  h.`node`,
  h.`interface`,
  h.`lost.packets`,
  h.`lost.bytes`
FROM conversations
CROSS JOIN UNNEST(`hops`) AS h (`node`, `agent.id`, `interface`, `hook`, `tuple`, `parallel`, `ttl`, `packets`, `bytes`,
  `frame_bytes`, `packets.estimate`, `bytes.estimate`, `lost.packets`, `lost.bytes`)
WHERE h.`lost.packets` > 0
UNION ALL
SELECT
  'back' AS `direction`,
  `conversation.id`,
  `flow.start_time`,
  `source.address`,
  `destination.address`,
  h.`node`,
  h.`interface`,
  h.`lost.packets`,
  h.`lost.bytes`
FROM conversations
CROSS JOIN UNNEST(`reverse.hops`) AS h (`node`, `agent.id`, `interface`, `hook`, `tuple`, `parallel`, `ttl`, `packets`, `bytes`,
  `frame_bytes`, `packets.estimate`, `bytes.estimate`, `lost.packets`, `lost.bytes`)
WHERE h.`lost.packets` > 0;

-- Connections whose address was rewritten on the way: what the initiator asked for, and who answered.
CREATE TEMPORARY VIEW rewritten AS
SELECT
  `conversation.id`,
  `nat.kind`,
  `nat.matched_by`,
  `source.address`,
  `source.port`,
  `destination.address`,
  `destination.port`,
  `nat.tuples`[CARDINALITY(`nat.tuples`)].`source.address` AS `rewritten.source.address`,
  `nat.tuples`[CARDINALITY(`nat.tuples`)].`destination.address` AS `rewritten.destination.address`,
  `flow.packets`,
  `flow.reverse.packets`
FROM conversations
WHERE `nat.kind` IS NOT NULL;
