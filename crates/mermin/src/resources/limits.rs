//! What the process's control group lets it have, cgroup v1 and v2 alike.
//!
//! A group is bound by its own limits and by those of every group above it, so the tightest counts. Where the files are is
//! told by `/proc/self/cgroup` (the group, of each hierarchy) and `/proc/self/mountinfo` (where a hierarchy is mounted, and
//! which of its groups is the mount's root: in a container often the container's own).

use std::fs;
use std::path::{Path, PathBuf};

/// What the process may have; `None` is as much as there is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Limits {
    /// Cores.
    pub(crate) cpu: Option<f64>,
    /// Bytes.
    pub(crate) memory: Option<u64>,
    /// The file that tells how often the group was kept from running, where `cpu` is the group's.
    pub(crate) throttling: Option<PathBuf>,
}

/// A controller's hierarchy: its folders from the process's group up to the one that is mounted.
struct Hierarchy {
    unified: bool,
    folders: Vec<PathBuf>,
}

/// Version 1 says "no limit" by the largest number of whole pages.
const UNLIMITED: u64 = 1 << 62;

impl Limits {
    /// Of the control group of this process, in the file system at `root`.
    pub(crate) fn of_this_process(root: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let (groups, mounts) = (read("proc/self/cgroup"), read("proc/self/mountinfo"));
        let hierarchies = |controller: &str| -> Vec<Hierarchy> {
            // Both versions can be mounted at once, and each controller is in one of them.
            let found = [Some(controller), None].map(|controller| folders(&groups, &mounts, controller));
            let both = found.into_iter().zip([false, true]);
            both.filter_map(|(folders, unified)| {
                let folders =
                    folders?.iter().map(|folder| root.join(folder.trim_start_matches('/'))).collect();
                Some(Hierarchy { unified, folders })
            })
            .collect()
        };
        let memory = hierarchies("memory").iter().flat_map(memory).min();
        let cpu = hierarchies("cpu").into_iter().flat_map(|hierarchy| {
            let Hierarchy { unified, folders } = hierarchy;
            folders.into_iter().filter_map(move |folder| Some((cores(&folder, unified)?, folder)))
        });
        let (cpu, folder) = cpu.min_by(|(a, _), (b, _)| a.total_cmp(b)).unzip();
        Self { cpu, memory, throttling: folder.map(|folder| folder.join("cpu.stat")) }
    }
}

/// The group's folders, its own first, in the hierarchy of a controller of version 1, or (`None`) in that of version 2.
fn folders(groups: &str, mounts: &str, controller: Option<&str>) -> Option<Vec<String>> {
    let own = groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (number, controllers, group) = (fields.next()?, fields.next()?, fields.next()?);
        let is_it = match controller {
            Some(controller) => controllers.split(',').any(|one| one == controller),
            None => number == "0" && controllers.is_empty(),
        };
        is_it.then_some(group)
    })?;
    let (top, mount) = mounts.lines().find_map(|line| {
        // Optional fields end with a dash; type, device and options of the file system follow it.
        let (front, back) = line.split_once(" - ")?;
        let (mut front, mut back) = (front.split(' ').skip(3), back.split(' '));
        let (top, mount) = (front.next()?, front.next()?);
        let (kind, options) = (back.next()?, back.nth(1)?);
        let is_it = match controller {
            Some(controller) => kind == "cgroup" && options.split(',').any(|one| one == controller),
            None => kind == "cgroup2",
        };
        is_it.then_some((top, mount))
    })?;
    // What is above the mount's root can't be seen; of a group elsewhere, only the mount's root can.
    let below = match own.strip_prefix(top.trim_end_matches('/')) {
        Some(below) if below.is_empty() || below.starts_with('/') => below.trim_end_matches('/'),
        _ => "",
    };
    let is_plain = |name: &str| !matches!(name, "" | "." | "..");
    let names: Vec<_> = below.split('/').filter(|name| is_plain(name)).collect();
    let folder = |depth: usize| {
        names[..depth].iter().fold(mount.to_owned(), |folder, name| format!("{folder}/{name}"))
    };
    Some((0..=names.len()).rev().map(folder).collect())
}

fn memory(hierarchy: &Hierarchy) -> Option<u64> {
    // Above `memory.high` the kernel slows a group down, above `memory.max` it ends processes.
    let files: &[&str] =
        if hierarchy.unified { &["memory.max", "memory.high"] } else { &["memory.limit_in_bytes"] };
    let number = |path: PathBuf| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let limits = hierarchy.folders.iter().flat_map(|folder| files.iter().map(|file| folder.join(file)));
    limits.filter_map(number).filter(|bytes| *bytes < UNLIMITED).min()
}

/// What a group's quota comes to.
fn cores(folder: &Path, unified: bool) -> Option<f64> {
    let read = |file: &str| fs::read_to_string(folder.join(file)).ok();
    let (quota, period) = if unified {
        let text = read("cpu.max")?;
        let mut fields = text.split_ascii_whitespace();
        (fields.next()?.parse::<f64>().ok()?, fields.next()?.parse::<f64>().ok()?)
    } else {
        let number = |file: &str| read(file)?.trim().parse::<f64>().ok();
        (number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?)
    };
    (quota > 0.0 && period > 0.0).then_some(quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file system with these files, by path below its root.
    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn limits(files: &[(&str, &str)]) -> (Option<f64>, Option<u64>, Option<String>) {
        let root = tree(files);
        let Limits { cpu, memory, throttling } = Limits::of_this_process(root.path());
        let below = |path: PathBuf| path.strip_prefix(root.path()).unwrap().display().to_string();
        (cpu, memory, throttling.map(below))
    }

    const V2: &str = "25 1 0:22 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn of_version_2_the_tightest_of_all_groups_above_counts() {
        let found = limits(&[
            ("proc/self/cgroup", "0::/system.slice/mermin.service\n"),
            ("proc/self/mountinfo", V2),
            ("sys/fs/cgroup/system.slice/mermin.service/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/system.slice/mermin.service/memory.max", "536870912\n"),
            ("sys/fs/cgroup/system.slice/mermin.service/memory.high", "max\n"),
            ("sys/fs/cgroup/system.slice/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/system.slice/memory.max", "268435456\n"),
        ]);
        let stat = "sys/fs/cgroup/system.slice/cpu.stat".to_owned();
        assert_eq!(found, (Some(1.5), Some(256 << 20), Some(stat)));
    }

    #[test]
    fn where_the_kernel_slows_down_counts_as_well() {
        let found = limits(&[
            ("proc/self/cgroup", "0::/a\n"),
            ("proc/self/mountinfo", V2),
            ("sys/fs/cgroup/a/memory.max", "268435456\n"),
            ("sys/fs/cgroup/a/memory.high", "134217728\n"),
        ]);
        assert_eq!(found, (None, Some(128 << 20), None));
    }

    /// As in a container with a namespace of its own: its group is the root, and has limits all the same.
    #[test]
    fn a_containers_group_is_its_root() {
        let found = limits(&[
            ("proc/self/cgroup", "0::/\n"),
            ("proc/self/mountinfo", V2),
            ("sys/fs/cgroup/cpu.max", "20000 100000\n"),
            ("sys/fs/cgroup/memory.max", "67108864\n"),
        ]);
        assert_eq!(found, (Some(0.2), Some(64 << 20), Some("sys/fs/cgroup/cpu.stat".to_owned())));
    }

    const V1: &str = "\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
        34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n";

    #[test]
    fn of_version_1_each_controller_has_its_own_tree() {
        let files = [
            (
                "proc/self/cgroup",
                "9:name=systemd:/\n5:memory:/m/inner\n3:cpuset:/other\n1:cpu,cpuacct:/c\n0::/\n",
            ),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/m/memory.limit_in_bytes", "104857600\n"),
            ("sys/fs/cgroup/memory/m/inner/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_quota_us", "50000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ];
        let with = |mounts: &str| limits(&[files.as_slice(), &[("proc/self/mountinfo", mounts)]].concat());
        let stat = "sys/fs/cgroup/cpu,cpuacct/c/cpu.stat".to_owned();
        assert_eq!(with(V1), (Some(0.5), Some(100 << 20), Some(stat.clone())));
        // Version 2 mounted beside it, without these controllers, changes nothing.
        let both = format!("{V1}41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
        assert_eq!(with(&both), (Some(0.5), Some(100 << 20), Some(stat)));
    }

    /// As in a container without a namespace of its own: the mount shows the container's group alone.
    #[test]
    fn a_mount_may_begin_at_the_group_itself() {
        let mounts = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let of = |group: &str| {
            limits(&[
                ("proc/self/cgroup", group),
                ("proc/self/mountinfo", mounts),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1048576\n"),
                ("sys/fs/cgroup/memory/below/memory.limit_in_bytes", "4096\n"),
            ])
            .1
        };
        assert_eq!(of("5:memory:/docker/abc\n"), Some(1 << 20));
        assert_eq!(of("5:memory:/docker/abc/below\n"), Some(4_096));
        assert_eq!(of("5:memory:/docker/abcdef\n"), Some(1 << 20), "another group, whose folder isn't there");
        assert_eq!(of("5:memory:/../../elsewhere\n"), Some(1 << 20));
    }

    #[test]
    fn without_a_limit_there_is_none() {
        assert_eq!(limits(&[]), (None, None, None));
        let files = [("proc/self/cgroup", "0::/\n"), ("proc/self/mountinfo", V2)];
        assert_eq!(limits(&files), (None, None, None));
    }
}
