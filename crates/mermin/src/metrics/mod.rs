//! The agent's own figures: one table of what there is, one function that reads all of it, and the forms in which it
//! is told.
//!
//! No label comes from traffic, nor from interfaces: each has a closed set of values, all of which are there from the
//! start. So the number of series depends on the configuration alone. (Outputs come and go by a reload: those that were keep
//! their books' series, up to 64 names.)

mod gather;
mod process;
mod reference;
mod render;
mod report;
mod table;

#[cfg(test)]
mod tests;

pub(crate) use gather::gather;
pub(crate) use process::Process;
pub use reference::metrics_page;
pub(crate) use render::Form;
pub(crate) use report::{Reporter, Reporting};
