//! Structs and constants shared with the kernel programs.
