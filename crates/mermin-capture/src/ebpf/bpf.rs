//! The few commands of bpf(2) that are wanted beside aya's (linux/bpf.h).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
#[cfg(test)]
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_MAP_LOOKUP_AND_DELETE_BATCH: libc::c_long = 25;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_UPDATE: libc::c_long = 29;
const BPF_LINK_DETACH: libc::c_long = 34;

/// The front of `union bpf_attr` for creating maps; the kernel takes what follows as zero.
#[repr(C)]
#[derive(Default)]
pub(super) struct Create {
    pub(super) map_type: u32,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) max_entries: u32,
    pub(super) map_flags: u32,
    pub(super) inner_map_fd: u32,
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

/// For links on a tcx hook.
#[repr(C)]
struct Link {
    program: u32,
    index: u32,
    hook: u32,
    flags: u32,
    relative: u32,
    pad: u32,
    revision: u64,
}

/// For another program on a link.
#[repr(C)]
struct Update {
    link: u32,
    program: u32,
    flags: u32,
    old: u32,
}

/// For names in a bpffs.
#[repr(C)]
struct At {
    path: u64,
    fd: u32,
    flags: u32,
}

/// For what is on a hook.
#[repr(C)]
#[derive(Default)]
struct Query {
    index: u32,
    hook: u32,
    query_flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    pad: u32,
    program_flags: u64,
    links: u64,
    link_flags: u64,
    revision: u64,
}

#[repr(C)]
struct Ask {
    fd: u32,
    length: u32,
    info: u64,
}

/// The front of `struct bpf_link_info` for tcx.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    pad: u32,
    index: u32,
    hook: u32,
}

pub(super) fn create_map(attributes: &Create) -> io::Result<OwnedFd> {
    // SAFETY: creating takes no pointers.
    let fd = unsafe { bpf(BPF_MAP_CREATE, attributes) }?;
    // SAFETY: a descriptor that the kernel has just made for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Writes a map's descriptor into this place of an array of maps.
pub(super) fn put_map(outer: BorrowedFd<'_>, place: u32, inner: BorrowedFd<'_>) -> io::Result<()> {
    let (key, value) = (place, inner.as_raw_fd() as u32);
    let element = Element {
        map_fd: outer.as_raw_fd() as u32,
        pad: 0,
        key: (&raw const key) as u64,
        value: (&raw const value) as u64,
        flags: 0,
    };
    // SAFETY: key and value outlive the call, each as large as the map's.
    unsafe { bpf(BPF_MAP_UPDATE_ELEM, &element) }.map(|_| ())
}

/// Room for what is taken out of a hash at once.
pub(super) struct Batch<K, V> {
    keys: Vec<K>,
    values: Vec<V>,
}

impl<K: Clone + Default, V: Clone + Default> Batch<K, V> {
    pub(super) fn new(entries: usize) -> Self {
        Self { keys: vec![K::default(); entries], values: vec![V::default(); entries] }
    }
}

/// The part of `union bpf_attr` for batches.
#[repr(C)]
struct Many {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    element_flags: u64,
    flags: u64,
}

/// Takes all entries out of a hash whose keys and values are `K` and `V`, integers and arrays of them only.
pub(super) fn take_batch<K: Clone + Default, V: Clone + Default>(
    map: BorrowedFd<'_>,
    batch: &mut Batch<K, V>,
    take: impl FnMut(&K, &V),
) -> io::Result<()> {
    all_of(BPF_MAP_LOOKUP_AND_DELETE_BATCH, map, batch, take)
}

/// Reads all entries of a hash that nobody writes to, and leaves them there.
pub(super) fn read_batch<K: Clone + Default, V: Clone + Default>(
    map: BorrowedFd<'_>,
    batch: &mut Batch<K, V>,
    read: impl FnMut(&K, &V),
) -> io::Result<()> {
    all_of(BPF_MAP_LOOKUP_BATCH, map, batch, read)
}

fn all_of<K: Clone + Default, V: Clone + Default>(
    command: libc::c_long,
    map: BorrowedFd<'_>,
    batch: &mut Batch<K, V>,
    mut take: impl FnMut(&K, &V),
) -> io::Result<()> {
    let (mut from, mut to) = (0_u32, 0_u32);
    let mut first = true;
    let mut attempts = 16;
    loop {
        let mut many = Many {
            from: if first { 0 } else { (&raw const from) as u64 },
            to: (&raw mut to) as u64,
            keys: batch.keys.as_mut_ptr() as u64,
            values: batch.values.as_mut_ptr() as u64,
            count: batch.keys.len() as u32,
            map_fd: map.as_raw_fd() as u32,
            element_flags: 0,
            flags: 0,
        };
        // SAFETY: keys and values have room for `count` entries, and all outlives the call.
        let result = unsafe { bpf(command, &mut many) };
        let error = result.err().map(|error| error.raw_os_error().unwrap_or_default());
        // Whatever else it says: so many were read. But for EFAULT, where none is and nobody has written the number.
        let count = if error == Some(libc::EFAULT) { 0 } else { many.count as usize };
        batch.keys.iter().zip(&batch.values).take(count).for_each(|(key, value)| take(key, value));
        match error {
            None => (from, first) = (to, false),
            Some(libc::ENOENT) => return Ok(()),
            Some(libc::EINTR | libc::EAGAIN | libc::EBUSY) if attempts > 0 => {
                // On from where it came to, which it says whenever it has begun.
                attempts -= 1;
                (from, first) = (to, false);
            }
            // A bucket has more than there is room for: it comes next.
            Some(libc::ENOSPC) if attempts > 0 => {
                attempts -= 1;
                (from, first) = (to, false);
                *batch = Batch::new(2 * batch.keys.len());
            }
            Some(code) => return Err(io::Error::from_raw_os_error(code)),
        }
    }
}

/// The front of `union bpf_attr` for running a program.
#[repr(C)]
#[derive(Default)]
struct Run {
    program: u32,
    result: u32,
    data_length: u32,
    out_length: u32,
    data: u64,
    out: u64,
    repeat: u32,
    duration: u32,
    context_length: u32,
    context_out_length: u32,
    context: u64,
    context_out: u64,
}

/// Runs a program for tc once, over a frame that says nothing.
pub(super) fn run_once(program: BorrowedFd<'_>) -> io::Result<()> {
    /// The least that the kernel takes is an Ethernet header.
    const FRAME: [u8; 14] = [0; 14];
    let mut run = Run {
        program: program.as_raw_fd() as u32,
        data_length: FRAME.len() as u32,
        data: FRAME.as_ptr() as u64,
        repeat: 1,
        ..Run::default()
    };
    // SAFETY: the frame outlives the call, and nothing is written but the structure.
    unsafe { bpf(BPF_PROG_TEST_RUN, &mut run) }.map(|_| ())
}

/// Attaches a program to a tcx hook of the link with this index; `flags` say where in the row.
pub(super) fn link(program: BorrowedFd<'_>, index: u32, hook: u32, flags: u32) -> io::Result<OwnedFd> {
    let attributes =
        Link { program: program.as_raw_fd() as u32, index, hook, flags, relative: 0, pad: 0, revision: 0 };
    // SAFETY: creating a link takes no pointers.
    let fd = unsafe { bpf(BPF_LINK_CREATE, &attributes) }?;
    // SAFETY: a descriptor that the kernel has just made for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Has a link run this program from now on, without a packet that sees none.
pub(super) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let update =
        Update { link: link.as_raw_fd() as u32, program: program.as_raw_fd() as u32, flags: 0, old: 0 };
    // SAFETY: no pointers.
    unsafe { bpf(BPF_LINK_UPDATE, &update) }.map(|_| ())
}

/// Takes a link's program off; returns when it runs nowhere any more.
pub(super) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    let link = link.as_raw_fd() as u32;
    // SAFETY: no pointers.
    unsafe { bpf(BPF_LINK_DETACH, &link) }.map(|_| ())
}

/// Gives a map or a link a name in a bpffs: it lives as long as that.
pub(super) fn pin(path: &CStr, object: BorrowedFd<'_>) -> io::Result<()> {
    let at = At { path: path.as_ptr() as u64, fd: object.as_raw_fd() as u32, flags: 0 };
    // SAFETY: the path outlives the call.
    unsafe { bpf(BPF_OBJ_PIN, &at) }.map(|_| ())
}

/// What has this name in a bpffs.
pub(super) fn pinned(path: &CStr) -> io::Result<OwnedFd> {
    let at = At { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    // SAFETY: the path outlives the call.
    let fd = unsafe { bpf(BPF_OBJ_GET, &at) }?;
    // SAFETY: a descriptor that the kernel has just made for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// How many programs are on a tcx hook of the link with this index.
pub(super) fn programs_on(index: u32, hook: u32) -> io::Result<u32> {
    let mut query = Query { index, hook, ..Query::default() };
    // SAFETY: without an array of ids the kernel writes within the structure alone.
    unsafe { bpf(BPF_PROG_QUERY, &mut query) }?;
    Ok(query.count)
}

/// The index of the network link that a tcx link is on; 0: that has gone.
pub(super) fn index_of(link: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = LinkInfo::default();
    let mut ask = Ask {
        fd: link.as_raw_fd() as u32,
        length: size_of::<LinkInfo>() as u32,
        info: (&raw mut info) as u64,
    };
    // SAFETY: `info` outlives the call and has the length that is told; any bytes are valid for its integers.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut ask) }?;
    Ok(info.index)
}

/// The front of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
pub(super) struct MapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    pub(super) value_size: u32,
    pub(super) max_entries: u32,
    map_flags: u32,
}

/// The sizes of a map.
pub(super) fn map_info(map: BorrowedFd<'_>) -> io::Result<MapInfo> {
    let mut info = MapInfo::default();
    let mut ask =
        Ask { fd: map.as_raw_fd() as u32, length: size_of::<MapInfo>() as u32, info: (&raw mut info) as u64 };
    // SAFETY: `info` outlives the call and has the length that is told; any bytes are valid for its integers.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut ask) }?;
    Ok(info)
}

/// A program for tc that lets everything pass to what comes next.
#[cfg(test)]
pub(super) fn passer() -> io::Result<OwnedFd> {
    /// The front of `union bpf_attr` for loading.
    #[repr(C)]
    struct Load {
        program_type: u32,
        instructions: u32,
        code: u64,
        licence: u64,
        rest: [u32; 4],
    }
    const SCHED_CLS: u32 = 3;
    // r0 = TC_ACT_UNSPEC; exit
    let code: [u64; 2] = [0xffff_ffff_0000_00b7, 0x95];
    let load = Load {
        program_type: SCHED_CLS,
        instructions: code.len() as u32,
        code: code.as_ptr() as u64,
        licence: c"GPL".as_ptr() as u64,
        rest: [0; 4],
    };
    // SAFETY: code and licence outlive the call, and the kernel reads as many instructions as are told.
    let fd = unsafe { bpf(BPF_PROG_LOAD, &load) }?;
    // SAFETY: a descriptor that the kernel has just made for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// # Safety
/// Pointers in `attributes` must be valid for the command, and what the command writes must fit.
unsafe fn bpf<A: Attributes>(command: libc::c_long, attributes: A) -> io::Result<libc::c_long> {
    let (start, length) = attributes.memory();
    // SAFETY: the kernel reads and, where the command has an answer, writes `length` bytes there; what they point to is
    // the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, start, length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A front of `union bpf_attr`.
trait Attributes {
    fn memory(self) -> (*const libc::c_void, usize);
}

impl<T> Attributes for &T {
    fn memory(self) -> (*const libc::c_void, usize) {
        (std::ptr::from_ref(self).cast(), size_of::<T>())
    }
}

impl<T> Attributes for &mut T {
    fn memory(self) -> (*const libc::c_void, usize) {
        (std::ptr::from_mut(self).cast_const().cast(), size_of::<T>())
    }
}
