//! Tests on the running kernel.
