//! The shipped object on the running kernel.

mod aggregate;
mod books;
mod crowd;
mod filters;
mod frames;
mod kept;
mod live;
mod nonlinear;
mod orphans;
mod other;
mod parity;
mod prebuilt;

/// Whether kernel programs can be loaded and namespaces made; says what is missing where they can't.
fn can_run(test: &str) -> bool {
    crate::testing::can_run(test, super::privilege::missing())
}
