//! Network interfaces as sources see them.

use mermin_wire::Link;
use std::sync::Arc;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: Arc<str>,
    /// The kernel's index.
    pub index: u32,
    /// What its frames start with: Ethernet or bare IP.
    pub link: Link,
    /// Whether it is up.
    pub up: bool,
}
