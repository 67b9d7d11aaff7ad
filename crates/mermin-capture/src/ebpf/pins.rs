//! Where maps and links have names that outlast the process: a folder of a bpffs for each network namespace.
//!
//! `<bpffs>/mermin/net-<cookie>/abi<version>-<boot id>`. The kernel gives a network namespace a cookie that no other one
//! gets until the next boot (Linux 5.14). Where no bpffs is mounted, at a place of its own or the usual one, it mounts one. The
//! namespace's folder is locked by the agent that uses it, and the lock goes with its process.

use super::bpf;
use super::error::EbpfError;
use mermin_abi::ABI_VERSION;
use mermin_flow::Hook;
use std::ffi::{CStr, CString};
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{process, thread};

/// The usual place of a bpffs.
const USUAL: &str = "/sys/fs/bpf";
/// Ours, where none is there.
const PRIVATE: &CStr = c"/run/mermin/bpf";
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
/// What names of links begin with.
const LINK: &str = "link-";
/// A predecessor that was killed may still be ending.
const PATIENCE: Duration = Duration::from_millis(500);

/// The locked folder of this network namespace.
pub(super) struct Pins {
    namespace: PathBuf,
    folder: PathBuf,
    _lock: File,
}

/// Who has the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process, where the kernel tells it to this one.
    pub process: Option<u32>,
    /// How long that has run.
    pub age: Option<Duration>,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.process, self.age) {
            (Some(process), Some(age)) => write!(f, "process {process}, for {} s", age.as_secs()),
            (Some(process), None) => write!(f, "process {process}"),
            (None, _) => f.write_str("a process of another container"),
        }
    }
}

impl Pins {
    /// Locks the folder of the calling thread's network namespace, and makes it if there is none.
    ///
    /// # Errors
    /// [`EbpfError::Held`], or there can be no bpffs.
    pub(super) fn open() -> Result<Self, EbpfError> {
        let failed = |source| EbpfError::NoBpffs { source };
        let root = match mounted() {
            Some(root) => root,
            None => mount().map_err(failed)?,
        };
        let namespace = in_root(&root).map_err(failed)?;
        fs::create_dir_all(&namespace).map_err(failed)?;
        Self::lock(namespace)
    }

    /// Locks a network namespace's folder.
    ///
    /// # Errors
    /// [`EbpfError::Held`], or no rights.
    pub(super) fn lock(namespace: PathBuf) -> Result<Self, EbpfError> {
        let failed = |source| EbpfError::NoBpffs { source };
        let lock = File::open(&namespace).map_err(failed)?;
        let mut waited = Duration::ZERO;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(failed(error)),
                Err(TryLockError::WouldBlock) if waited < PATIENCE => {
                    waited += Duration::from_millis(10);
                    thread::sleep(Duration::from_millis(10));
                }
                Err(TryLockError::WouldBlock) => {
                    let interfaces = interfaces(&namespace);
                    return Err(EbpfError::Held { holder: holder(&lock), interfaces });
                }
            }
        }
        let folder = namespace.join(version());
        Ok(Self { namespace, folder, _lock: lock })
    }

    /// Makes the folder of this version.
    pub(super) fn make(&self) -> io::Result<()> {
        fs::create_dir_all(&self.folder)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(super) fn pin(&self, name: &str, object: BorrowedFd<'_>) -> io::Result<()> {
        bpf::pin(&text(&self.path(name))?, object)
    }

    pub(super) fn get(&self, name: &str) -> io::Result<OwnedFd> {
        get_at(&self.folder, name)
    }

    /// The link of an interface's hook, if it is on that interface.
    pub(super) fn link(&self, index: u32, hook: Hook) -> Option<OwnedFd> {
        let link = self.get(&link_name(index, hook)).ok()?;
        bpf::index_of(link.as_fd()).is_ok_and(|on| on == index).then_some(link)
    }

    pub(super) fn pin_link(&self, index: u32, hook: Hook, link: BorrowedFd<'_>) -> io::Result<()> {
        self.pin(&link_name(index, hook), link)
    }

    /// Takes the programs of an interface's links off, and the links' names away.
    pub(super) fn forget_links(&self, index: u32) {
        forget_links(&self.folder, index);
    }

    /// Indexes of the interfaces whose links have names.
    pub(super) fn linked(&self) -> Vec<u32> {
        linked(&self.folder)
    }

    /// Takes all programs off, and the names of maps and links away; how many there were.
    pub(super) fn clear(&self) -> usize {
        let names = entries(&self.folder).len();
        take_links_off(&self.folder);
        remove(&self.folder);
        names
    }

    /// Takes the names of all maps but this one away.
    pub(super) fn clear_maps(&self, but: &str) {
        for path in entries(&self.folder) {
            if path.file_name().is_some_and(|name| name != but) {
                let _ = fs::remove_file(path);
            }
        }
    }

    /// Folders of agents with another version of the shared structs.
    pub(super) fn others(&self) -> Vec<PathBuf> {
        entries(&self.namespace).into_iter().filter(|path| *path != self.folder).collect()
    }

    /// Takes off and away what those have left; the folders' names.
    pub(super) fn clear_others(&self) -> Vec<String> {
        let others = self.others().into_iter().filter_map(|folder| {
            take_links_off(&folder);
            remove(&folder);
            Some(folder.file_name()?.to_string_lossy().into_owned())
        });
        others.collect()
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        // Only where nothing is in them.
        let _ = fs::remove_dir(&self.folder);
        let _ = fs::remove_dir(&self.namespace);
    }
}

/// Names of interfaces of this network namespace whose links have names here.
pub(super) fn interfaces(namespace: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        entries(namespace).iter().flat_map(|folder| linked(folder)).filter_map(name_of).collect();
    names.sort();
    names.dedup();
    names
}

/// Takes the programs of all links off that have names in a folder, and the links' names away.
pub(super) fn take_links_off(folder: &Path) {
    linked(folder).into_iter().for_each(|index| forget_links(folder, index));
}

fn forget_links(folder: &Path, index: u32) {
    for hook in [Hook::Ingress, Hook::Egress] {
        let name = link_name(index, hook);
        // It would end some time after its name.
        if let Ok(link) = get_at(folder, &name) {
            let _ = bpf::detach_link(link.as_fd());
        }
        let _ = fs::remove_file(folder.join(name));
    }
}

/// The folder of the calling thread's network namespace, if there is one.
pub(super) fn folder_of_namespace() -> Option<PathBuf> {
    in_root(&mounted()?).ok().filter(|folder| folder.is_dir())
}

/// Who has a folder locked.
pub(super) fn holder_of(namespace: &Path) -> Option<Holder> {
    let file = File::open(namespace).ok()?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Some(holder(&file)),
        _ => None,
    }
}

fn in_root(root: &Path) -> io::Result<PathBuf> {
    Ok(root.join(format!("mermin/net-{}", cookie()?)))
}

fn link_name(index: u32, hook: Hook) -> String {
    format!("{LINK}{index}-{}", hook.name())
}

fn linked(folder: &Path) -> Vec<u32> {
    let index = |path: &PathBuf| {
        let (index, _) = path.file_name()?.to_str()?.strip_prefix(LINK)?.split_once('-')?;
        index.parse().ok()
    };
    let mut indexes: Vec<u32> = entries(folder).iter().filter_map(index).collect();
    indexes.sort_unstable();
    indexes.dedup();
    indexes
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn remove(folder: &Path) -> usize {
    let removed = entries(folder).iter().filter(|path| fs::remove_file(path).is_ok()).count();
    let _ = fs::remove_dir(folder);
    removed
}

fn text(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

fn name_of(index: u32) -> Option<String> {
    let mut name = [0_u8; libc::IF_NAMESIZE];
    // SAFETY: room for a name and its end.
    let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr().cast()) };
    let name = CStr::from_bytes_until_nul(&name).ok().filter(|_| !found.is_null())?;
    Some(name.to_string_lossy().into_owned())
}

/// What a network namespace's folder has by this name, of this version.
pub(super) fn get_in(namespace: &Path, name: &str) -> Option<OwnedFd> {
    get_at(&namespace.join(version()), name).ok()
}

/// What a version's folder has by this name.
pub(super) fn get_at(folder: &Path, name: &str) -> io::Result<OwnedFd> {
    bpf::pinned(&text(&folder.join(name))?)
}

/// The name of this version's folder.
fn version() -> String {
    format!("abi{ABI_VERSION}-{}", boot_id())
}

fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().chars().filter(char::is_ascii_alphanumeric).collect()
}

/// Of the calling thread's network namespace.
fn cookie() -> io::Result<u64> {
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let socket = std::os::unix::net::UnixDatagram::unbound()?;
    let (mut cookie, mut length) = (0_u64, size_of::<u64>() as libc::socklen_t);
    // SAFETY: `cookie` has the length that is told.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

fn is_bpffs(path: &CStr) -> bool {
    let mut about = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: a path, and room for the answer.
    let result = unsafe { libc::statfs(path.as_ptr(), about.as_mut_ptr()) };
    // SAFETY: the kernel has filled it.
    result == 0 && unsafe { about.assume_init() }.f_type == BPF_FS_MAGIC
}

/// A bpffs that is there.
fn mounted() -> Option<PathBuf> {
    let private = Path::new(std::ffi::OsStr::from_bytes(PRIVATE.to_bytes()));
    // Whoever has mounted ours wants it used: another user than root has no way into the usual one.
    [private, Path::new(USUAL)]
        .into_iter()
        .find(|path| text(path).is_ok_and(|path| is_bpffs(&path)))
        .map(Path::to_owned)
}

/// Mounts a private one.
fn mount() -> io::Result<PathBuf> {
    let path = PathBuf::from(std::ffi::OsStr::from_bytes(PRIVATE.to_bytes()));
    fs::create_dir_all(&path)?;
    // Of two at the same time one would mount over the other's.
    let around = File::open(path.parent().unwrap_or(&path))?;
    around.lock()?;
    if is_bpffs(PRIVATE) {
        return Ok(path);
    }
    // SAFETY: strings that end with a zero; no data.
    let result = unsafe {
        libc::mount(
            c"mermin".as_ptr(),
            PRIVATE.as_ptr(),
            c"bpf".as_ptr(),
            libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC,
            c"mode=0700".as_ptr().cast(),
        )
    };
    if result == 0 { Ok(path) } else { Err(io::Error::last_os_error()) }
}

/// Whose lock it is, from `/proc/locks`.
fn holder(file: &File) -> Holder {
    let inode = file.metadata().map(|about| about.ino()).unwrap_or_default();
    let device = file.metadata().map(|about| about.dev()).unwrap_or_default();
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let process = process_in(&locks, (libc::major(device), libc::minor(device), inode));
    let process = process.filter(|process| *process != process::id());
    Holder { process, age: process.and_then(age) }
}

/// In lines like `3: FLOCK  ADVISORY  WRITE 4711 00:2a:1025 0 EOF`; 0 or less: a process of another PID namespace.
fn process_in(locks: &str, (major, minor, inode): (u32, u32, u64)) -> Option<u32> {
    let file = format!("{major:02x}:{minor:02x}:{inode}");
    let line = locks.lines().find(|line| {
        let mut words = line.split_whitespace();
        words.nth(1) == Some("FLOCK") && words.nth(3) == Some(&file)
    })?;
    line.split_whitespace().nth(4)?.parse().ok().filter(|process| *process > 0)
}

fn age(process: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // Behind the program's name, which may have anything in it.
    let began: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    // SAFETY: no memory is passed.
    let hertz = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).ok()?.max(1);
    let up = fs::read_to_string("/proc/uptime").ok()?;
    let up: f64 = up.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_secs((up as u64).saturating_sub(began / hertz)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_found() {
        let locks = "1: POSIX  ADVISORY  WRITE 12 00:2a:1025 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 4711 00:2a:1025 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 0 00:2b:1025 0 EOF\n";
        assert_eq!(process_in(locks, (0, 0x2a, 1025)), Some(4_711));
        assert_eq!(process_in(locks, (0, 0x2b, 1025)), None);
        assert_eq!(process_in(locks, (0, 0x2a, 1026)), None);
        assert!(age(process::id()).is_some_and(|age| age < Duration::from_secs(3_600)));
    }

    #[test]
    fn links_are_found_by_their_names() {
        let folder = std::env::temp_dir().join(format!("mermin-pins-{}", process::id()));
        fs::create_dir_all(&folder).unwrap();
        for name in ["link-7-ingress", "link-7-egress", "link-12-egress", "RING"] {
            fs::write(folder.join(name), "").unwrap();
        }
        assert_eq!(linked(&folder), [7, 12]);
        assert_eq!(remove(&folder), 4);
        assert!(!folder.exists());
    }
}
