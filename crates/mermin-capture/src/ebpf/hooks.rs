//! What else is on the hooks of an interface.

use super::error::EbpfError;
use aya::programs::{SchedClassifier, TcAttachType};
use mermin_flow::Hook;

/// A program on a tcx hook of an interface, anybody's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Where it hangs.
    pub hook: Hook,
    /// The kernel's number.
    pub id: u32,
    /// Its name, as far as the kernel keeps it (15 bytes).
    pub name: String,
}

/// The programs on the tcx hooks of an interface, in the order in which they run: what may hide packets from Mermin or
/// change them before it sees them.
///
/// # Errors
/// No permission, no such interface, or a kernel before Linux 6.6.
pub fn hooks(ifname: &str) -> Result<Vec<Attached>, EbpfError> {
    let mut attached = Vec::new();
    for (hook, kind) in [(Hook::Ingress, TcAttachType::Ingress), (Hook::Egress, TcAttachType::Egress)] {
        let (_, programs) = SchedClassifier::query_tcx(ifname, kind)
            .map_err(|source| EbpfError::Query { interface: ifname.into(), source: Box::new(source) })?;
        attached.extend(programs.iter().map(|program| Attached {
            hook,
            id: program.id(),
            name: String::from_utf8_lossy(program.name()).into_owned(),
        }));
    }
    Ok(attached)
}
