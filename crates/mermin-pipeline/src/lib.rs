//! Reader, shards, workers, channels, ledger and statistics.
