//! Network-flow observability: packets in, exact flow records out.
