-- What is made of the records. flow_records, conversation_rows and count_events come from the job's operators.

-- A window is one of counted_at: the minute of the end time for a record in time, the minute of the watermark for one that
-- came late. So no window drops anything, and a row whose `timing` is set corrects a minute that was released before: add it.
CREATE TEMPORARY VIEW traffic_rows AS
SELECT
  FLOOR(end_time TO MINUTE),
  FLOOR(end_time TO MINUTE) + INTERVAL '1' MINUTE,
  timing,
  source_kind,
  source_namespace,
  source_name,
  destination_kind,
  destination_namespace,
  destination_name,
  SUM(packets),
  SUM(ip_bytes),
  SUM(frame_bytes),
  SUM(reverse_packets),
  SUM(reverse_ip_bytes),
  SUM(reverse_frame_bytes),
  SUM(packets_estimate),
  SUM(ip_bytes_estimate),
  SUM(reverse_packets_estimate),
  SUM(reverse_ip_bytes_estimate),
  COUNT(*),
  SUM(begins),
  SUM(ends)
FROM TABLE(TUMBLE(TABLE flow_records, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE))
GROUP BY
  window_start,
  window_end,
  FLOOR(end_time TO MINUTE),
  timing,
  source_kind,
  source_namespace,
  source_name,
  destination_kind,
  destination_namespace,
  destination_name;

-- What was late, came twice, could not be read, or met a bound.
CREATE TEMPORARY VIEW count_rows AS
SELECT
  window_start,
  window_end,
  name,
  SUM(n)
FROM TABLE(TUMBLE(TABLE count_events, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE))
GROUP BY
  window_start,
  window_end,
  name;
