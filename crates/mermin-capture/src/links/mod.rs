//! Interfaces come and go: a thread hears of links from the kernel (rtnetlink) and keeps a source's taps on those that
//! are wanted.
//!
//! A tap goes on as soon as a link is up and a pattern fits its name, and off when the link has gone, has moved to
//! another network namespace or has got a name that no pattern fits. It stays on while a link is down: nothing crosses
//! it then, and nothing is missed when it comes up again. When the kernel had to drop messages the thread asks for the
//! list of all links and compares.
//!
//! All waiting is here: attaching takes the kernel up to tens of milliseconds, and the packet reader never waits for it.

mod follow;
mod layers;
pub(crate) mod netlink;
mod taps;
#[cfg(test)]
mod tests;
mod view;
mod watch;

pub use follow::Follow;
pub(crate) use follow::{AGAIN, follow};
pub(crate) use taps::{Numbers, Taps};
pub use view::{LinkCounts, LinkOn, Links, Technology};
pub(crate) use watch::list;

/// An error and its causes, on one line.
pub(crate) fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
