//! The real Apache Kafka: one node that is broker and controller, with a listener for each way to reach it.
//!
//! Whatever is written to a topic is in the system's page cache when it is acknowledged, so `kill -9` loses nothing.
//! After one, the broker is up again when its old session has run out (3 s). Topics are made by the protocol itself
//! (`wire.rs`): Kafka's own program for that takes seconds to start. What is in a topic is read by kcat, which shares
//! its library with the program under test but none of its code; the broker's own consumer would be another choice, at
//! two seconds for each look.

mod message;
mod wire;

pub use message::Message;

use super::KAFKA;
use super::certificates::{Authority, Pair};
use super::folder::Folder;
use super::place::Place;
use super::process::{Process, without_surroundings};
use rustix::process::Signal;
use std::fmt::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Who may come in at [`Listener::Password`].
pub const USER: &str = "agent";
/// Their password.
pub const PASSWORD: &str = "not-for-others";
const CLUSTER: &str = "MkU3OEVBNTcwNTJENDM2Qg";

/// How a client reaches the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// Without TLS and without a password.
    Plain,
    /// TLS: the broker shows a certificate.
    Tls,
    /// TLS: the client too.
    Mutual,
    /// TLS and a password: SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN.
    Password,
}

const LISTENERS: [(Listener, &str, &str); 4] = [
    (Listener::Plain, "PLAIN", "PLAINTEXT"),
    (Listener::Tls, "TLS", "SSL"),
    (Listener::Mutual, "MUTUAL", "SSL"),
    (Listener::Password, "PASSWORD", "SASL_SSL"),
];

/// A running broker.
#[derive(Debug)]
pub struct Kafka {
    process: Process,
    place: Place,
    /// In the order of [`LISTENERS`].
    addresses: [SocketAddr; 4],
    authority: Authority,
    client: Pair,
    folder: Folder,
}

impl Kafka {
    /// Whether its programs are there.
    ///
    /// # Errors
    /// What is missing.
    pub fn installed() -> Result<(), String> {
        for name in ["setpriv", "java", "kcat"] {
            crate::need::tool(name)?;
        }
        KAFKA.installed()
    }

    /// Starts one.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&Place::Here, &[])
    }

    /// Starts one in a place, with more lines of `server.properties`.
    ///
    /// # Panics
    /// When it doesn't come up.
    #[must_use]
    pub fn start_with(place: &Place, properties: &[(&str, &str)]) -> Self {
        Self::launch(place, properties, &KAFKA.folder(), "SharedArchiveFile")
    }

    /// Starts and stops the one in `programs`, which thereby gets its `classes.jsa`.
    ///
    /// # Panics
    /// When it doesn't come up, or doesn't end well.
    pub fn archive_classes(programs: &Path) {
        let mut broker = Self::launch(&Place::Here, &[], programs, "ArchiveClassesAtExit");
        broker.process.terminate();
    }

    fn launch(place: &Place, properties: &[(&str, &str)], programs: &Path, archive: &str) -> Self {
        let (folder, authority) = (Folder::new(), Authority::new());
        let client = authority.client("agent", &[]);
        let addresses = [(); 4].map(|()| place.free_address());
        let server = authority.server("broker", &[]);
        let chain =
            [&server.key, &server.certificate].map(|file| std::fs::read(file).expect("it was written"));
        folder.write("server.pem", chain.concat());
        let config =
            config(&addresses, place.free_address(), folder.path(), authority.certificate(), properties);
        let config = folder.write("server.properties", config);
        format(place, programs, &config);
        let process = run(place, programs, archive, folder.path());
        let mut broker = Self { process, place: place.clone(), addresses, authority, client, folder };
        broker.wait_until_up();
        broker
    }

    fn wait_until_up(&mut self) {
        let (place, plain) = (self.place.clone(), self.addresses[0]);
        self.process.wait_until(|| {
            place.inside(|| TcpStream::connect(plain).is_ok())
                && kcat(&place, plain, 5).arg("-L").output().is_ok_and(|output| output.status.success())
        });
    }

    /// For `export.kafka.brokers`: `127.0.0.1:PORT`.
    ///
    /// # Panics
    /// Never: all listeners have an address.
    #[must_use]
    pub fn address(&self, listener: Listener) -> SocketAddr {
        let at = LISTENERS.iter().position(|(other, ..)| *other == listener);
        self.addresses[at.expect("all are there")]
    }

    /// The file with the authority that signed its certificate.
    #[must_use]
    pub fn authority(&self) -> &Path {
        self.authority.certificate()
    }

    /// What a client may show to it.
    #[must_use]
    pub fn client_pair(&self) -> &Pair {
        &self.client
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Makes a topic; it can be written to at once. `config` is what Kafka calls it: `("max.message.bytes", "1000")`.
    ///
    /// # Panics
    /// When the broker refuses.
    pub fn create_topic(&self, name: &str, partitions: u16, config: &[(&str, &str)]) {
        let made = self.place.inside(|| wire::create_topic(self.addresses[0], name, partitions, config));
        made.unwrap_or_else(|error| panic!("topic {name}: {error}"));
        // The controller has made it; the broker learns of it a moment later.
        let began = std::time::Instant::now();
        while self.leaders(name) != usize::from(partitions) {
            assert!(began.elapsed().as_secs() < 30, "topic {name} has no leaders: {}", self.process.log());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// How many of a topic's partitions can be written to.
    fn leaders(&self, topic: &str) -> usize {
        let output = kcat(&self.place, self.addresses[0], 5).args(["-L", "-t", topic]).output();
        let text = output.map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&text)
            .lines()
            .filter(|line| line.trim_start().starts_with("partition ") && line.contains("leader 1,"))
            .count()
    }

    /// All that is in a topic now, partition by partition in the order of offsets.
    ///
    /// # Panics
    /// When it can't be read.
    #[must_use]
    pub fn consume(&self, topic: &str) -> Vec<Message> {
        consume(&self.place, self.addresses[0], topic).unwrap_or_else(|error| {
            panic!("{error}; {}", self.process.log());
        })
    }

    /// The files that a topic's batches are in.
    ///
    /// # Panics
    /// When its folders can't be read.
    #[must_use]
    pub fn segments(&self, topic: &str) -> Vec<PathBuf> {
        let entries = |folder: &Path| -> Vec<PathBuf> {
            let entries = std::fs::read_dir(folder).expect("the broker's folder");
            entries.map(|entry| entry.expect("a name").path()).collect()
        };
        let is_of_topic = |folder: &PathBuf| {
            let name = folder.file_name().unwrap_or_default().to_string_lossy();
            name.rsplit_once('-')
                .is_some_and(|(of, partition)| of == topic && partition.parse::<u16>().is_ok())
        };
        let folders = entries(&self.folder.path().join("data")).into_iter().filter(is_of_topic);
        let files = folders.flat_map(|folder| entries(&folder));
        files.filter(|file| file.extension().is_some_and(|end| end == "log")).collect()
    }

    /// Ends it by SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Ends it by SIGTERM, as a roll-out does; Java then says 143, which is well.
    pub fn stop(&mut self) {
        self.process.terminate();
    }

    /// Starts it again at its addresses, with the topics that it has.
    pub fn restart(&mut self) {
        self.process.kill();
        self.process = run(&self.place, &KAFKA.folder(), "SharedArchiveFile", self.folder.path());
        self.wait_until_up();
    }

    /// Stops it in its tracks: connections stay open, nothing answers.
    pub fn hang(&self) {
        self.process.signal(Signal::STOP);
    }

    /// Lets a stopped one go on.
    pub fn resume(&self) {
        self.process.signal(Signal::CONT);
    }
}

/// All that is in a topic of a broker, or what kcat says.
fn consume(place: &Place, broker: SocketAddr, topic: &str) -> Result<Vec<Message>, String> {
    let mut command = kcat(place, broker, 60);
    command.args(["-C", "-q", "-e", "-o", "beginning", "-X", "check.crcs=true", "-f", message::FORMAT]);
    let output =
        command.args(["-t", topic]).output().map_err(|error| format!("kcat does not start: {error}"))?;
    if !output.status.success() {
        return Err(format!("kcat can't read {topic}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let mut messages = message::read(&output.stdout).map_err(|at| format!("not kcat's form at byte {at}"))?;
    messages.sort_by_key(|message| (message.partition, message.offset));
    Ok(messages)
}

/// kcat, which is ended after so many seconds.
fn kcat(place: &Place, broker: SocketAddr, seconds: u32) -> Command {
    let mut command = without_surroundings(place.command(Path::new("timeout")));
    command.args([&seconds.to_string(), "kcat", "-b", &broker.to_string(), "-m", &seconds.to_string()]);
    command
}

/// The script that runs a class of Kafka.
fn script(programs: &Path) -> PathBuf {
    programs.join(KAFKA.programs[0])
}

fn run(place: &Place, programs: &Path, archive: &str, folder: &Path) -> Process {
    let arguments = [
        format!("KAFKA_ARCHIVE=-XX:{archive}=classes.jsa"),
        script(programs).display().to_string(),
        "-Xmx384m".into(),
        "kafka.Kafka".into(),
        folder.join("server.properties").display().to_string(),
    ];
    Process::start(place, Path::new("/usr/bin/env"), &arguments, folder)
}

/// Makes the log folder, and the user that it knows from the first moment on.
fn format(place: &Place, programs: &Path, config: &Path) {
    let mut command = without_surroundings(place.command(&script(programs)));
    command.args(["-Xmx128m", "kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c"]).arg(config);
    for mechanism in ["SCRAM-SHA-512", "SCRAM-SHA-256"] {
        let user = format!("{mechanism}=[name={USER},password={PASSWORD}]");
        command.args(["--add-scram", &user]);
    }
    let output = command.output().expect("it starts");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "kafka-storage: {}", String::from_utf8_lossy(&said));
}

/// `server.properties`.
fn config(
    addresses: &[SocketAddr; 4],
    controller: SocketAddr,
    folder: &Path,
    authority: &Path,
    more: &[(&str, &str)],
) -> String {
    let listeners = LISTENERS.iter().zip(addresses);
    let listeners: String = listeners.map(|((_, name, _), address)| format!("{name}://{address},")).collect();
    let protocols: String =
        LISTENERS.map(|(_, name, protocol)| format!("{name}:{protocol},")).concat() + "CONTROLLER:PLAINTEXT";
    let module =
        |name: &str, users: &str| format!("org.apache.kafka.common.security.{name} required{users};");
    let scram = module("scram.ScramLoginModule", "");
    let plain = module("plain.PlainLoginModule", &format!(" user_{USER}=\"{PASSWORD}\""));
    let folder = folder.display();
    let mut text = format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@{controller}\n\
         listeners={listeners}CONTROLLER://{controller}\nadvertised.listeners={}\n\
         listener.security.protocol.map={protocols}\ncontroller.listener.names=CONTROLLER\n\
         inter.broker.listener.name=PLAIN\nlog.dirs={folder}/data\n\
         ssl.keystore.type=PEM\nssl.keystore.location={folder}/server.pem\n\
         ssl.truststore.type=PEM\nssl.truststore.location={}\nlistener.name.mutual.ssl.client.auth=required\n\
         listener.name.password.sasl.enabled.mechanisms=SCRAM-SHA-512,SCRAM-SHA-256,PLAIN\n",
        listeners.trim_end_matches(','),
        authority.display(),
    );
    for (mechanism, module) in [("scram-sha-512", &scram), ("scram-sha-256", &scram), ("plain", &plain)] {
        let _ = writeln!(text, "listener.name.password.{mechanism}.sasl.jaas.config={module}");
    }
    let fixed = [
        ("auto.create.topics.enable", "false"),
        ("offsets.topic.num.partitions", "1"),
        ("offsets.topic.replication.factor", "1"),
        ("transaction.state.log.num.partitions", "1"),
        ("transaction.state.log.replication.factor", "1"),
        ("transaction.state.log.min.isr", "1"),
        // Captures are old, and a record's time is its message's.
        ("log.retention.ms", "-1"),
        // As long as this the broker that was killed is still there for the controller.
        ("broker.session.timeout.ms", "3000"),
        ("broker.heartbeat.interval.ms", "200"),
        // A third of the heap otherwise.
        ("log.cleaner.dedupe.buffer.size", "4194304"),
    ];
    for (name, value) in fixed.iter().chain(more) {
        let _ = writeln!(text, "{name}={value}");
    }
    text
}
