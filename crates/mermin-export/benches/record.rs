//! The cost of one record.

fn main() {}
