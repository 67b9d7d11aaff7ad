//! Outputs: text, JSON lines, log events; the attribute table.
