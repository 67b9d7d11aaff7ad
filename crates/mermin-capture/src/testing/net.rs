//! Two network namespaces and a veth pair between them, gone when dropped; and traffic over it.

use crate::interfaces::Interface;
use mermin_wire::Link;
use std::fs::File;
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// The port that [`send`] sends to.
pub(crate) const PORT: u16 = 7_777;

pub(crate) fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// `here` has `va` with 10.9.0.1 and fd09::1, `there` has `vb` with 10.9.0.2 and fd09::2.
pub(crate) struct Pair {
    pub(crate) here: String,
    pub(crate) there: String,
}

impl Pair {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = |end| format!("mk{}-{number}{end}", std::process::id());
        let pair = Self { here: name("a"), there: name("b") };
        let Self { here, there } = &pair;
        for namespace in [here, there] {
            run(&format!("ip netns add {namespace}"));
        }
        run(&format!("ip link add va netns {here} type veth peer name vb netns {there}"));
        for (namespace, device, host) in [(here, "va", 1), (there, "vb", 2)] {
            let ip = |arguments: &str| run(&format!("ip -n {namespace} {arguments}"));
            ip(&format!("addr add 10.9.0.{host}/24 dev {device}"));
            ip(&format!("addr add fd09::{host}/64 dev {device} nodad"));
            ip("link set lo up");
            ip(&format!("link set {device} up"));
        }
        pair
    }

    /// Runs `act` on a thread inside a namespace.
    pub(crate) fn inside<T: Send>(namespace: &str, act: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    let file = File::open(format!("/run/netns/{namespace}")).unwrap();
                    // SAFETY: changes this thread's namespace only.
                    assert_eq!(unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
                    act()
                })
                .join()
                .unwrap()
        })
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for namespace in [&self.here, &self.there] {
            let _ = Command::new("ip").args(["netns", "del", namespace]).status();
        }
    }
}

/// A device of the current thread's namespace.
pub(crate) fn interface(name: &str) -> Interface {
    let text = std::ffi::CString::new(name).unwrap();
    // SAFETY: a C string.
    let index = unsafe { libc::if_nametoindex(text.as_ptr()) };
    assert_ne!(index, 0, "no device {name}");
    Interface { name: name.into(), index, link: Link::Ethernet, up: true }
}

/// A socket at the near end.
pub(crate) fn sender() -> UdpSocket {
    UdpSocket::bind("10.9.0.1:5555").unwrap()
}

/// Sends packets to the far end.
pub(crate) fn send(socket: &UdpSocket, packets: usize, payload: usize) {
    for _ in 0..packets {
        socket.send_to(&vec![7; payload], ("10.9.0.2", PORT)).unwrap();
    }
}
