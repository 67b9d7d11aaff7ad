//! The stream job (`streams/`) behind real agents and a real broker.

mod conversation;
mod end_to_end;
mod row_of_hosts;
