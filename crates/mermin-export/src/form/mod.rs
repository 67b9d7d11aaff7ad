//! How values look as text, in every output: appended to a byte buffer, without allocation.

mod address;
mod escape;
mod number;
mod time;

pub(crate) use address::{push_end, push_ip, push_mac};
pub(crate) use escape::{Dialect, FOREIGN_MAX, push_foreign};
pub(crate) use number::{hex_id, push_hex_id, push_number, push_two};
pub(crate) use time::Clock;
