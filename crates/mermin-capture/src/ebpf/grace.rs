//! Waiting until every program run that may have read the old epoch has ended.
//!
//! Writing into an array of maps returns after the kernel's grace period (`synchronize_rcu`), because programs may
//! still use the inner map that was replaced. Nothing else is wanted of these two maps. `membarrier` would wait alike,
//! but is refused on kernels with `nohz_full`.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;

/// The front of `union bpf_attr` for creating maps (linux/bpf.h); the kernel takes what follows as zero.
#[repr(C)]
#[derive(Default)]
struct Create {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
}

/// The same for elements.
#[repr(C)]
struct Element {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

pub(super) struct Grace {
    outer: OwnedFd,
    inner: OwnedFd,
}

impl Grace {
    pub(super) fn new() -> io::Result<Self> {
        let array = Create {
            map_type: BPF_MAP_TYPE_ARRAY,
            key_size: 4,
            value_size: 4,
            max_entries: 1,
            ..Create::default()
        };
        let inner = create(&array)?;
        let outer = create(&Create {
            map_type: BPF_MAP_TYPE_ARRAY_OF_MAPS,
            inner_map_fd: inner.as_raw_fd() as u32,
            ..array
        })?;
        Ok(Self { outer, inner })
    }

    /// Returns when no program runs that ran at the call. Milliseconds; up to a hundred on a busy machine.
    pub(super) fn wait(&self) -> io::Result<()> {
        let (key, value) = (0_u32, self.inner.as_raw_fd() as u32);
        let element = Element {
            map_fd: self.outer.as_raw_fd() as u32,
            pad: 0,
            key: (&raw const key) as u64,
            value: (&raw const value) as u64,
            flags: 0,
        };
        // SAFETY: key and value outlive the call, each as large as the map's.
        unsafe { bpf(BPF_MAP_UPDATE_ELEM, &element) }.map(|_| ())
    }
}

fn create(attributes: &Create) -> io::Result<OwnedFd> {
    // SAFETY: creating takes no pointers.
    let fd = unsafe { bpf(BPF_MAP_CREATE, attributes) }?;
    // SAFETY: a descriptor that the kernel has just made for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// # Safety
/// Pointers in `attributes` must be valid for the command.
unsafe fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes of `attributes`; what they point to is the caller's promise.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
