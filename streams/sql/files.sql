-- The same results as JSON files, a folder for each table. A file is closed when it has 128 MB or is 5 minutes old, which is
-- looked at each minute, and is visible when the checkpoint after that is done.

CREATE TEMPORARY TABLE traffic_files WITH (
  ${traffic-files}
) LIKE traffic (EXCLUDING OPTIONS);

CREATE TEMPORARY TABLE conversations_files WITH (
  ${conversations-files}
) LIKE conversations (EXCLUDING OPTIONS);

CREATE TEMPORARY TABLE counts_files WITH (
  ${counts-files}
) LIKE counts (EXCLUDING OPTIONS);

INSERT INTO traffic_files SELECT * FROM traffic_rows;
INSERT INTO conversations_files SELECT * FROM conversation_rows;
INSERT INTO counts_files SELECT * FROM count_rows;
