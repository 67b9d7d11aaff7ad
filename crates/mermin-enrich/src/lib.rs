//! Names for the ends of a flow.
