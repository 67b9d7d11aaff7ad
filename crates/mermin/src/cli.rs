//! The command line.
//!
//! Texts here are what users read first, so `-h` fits a screen and `--help` has examples. Nothing is listed that does
//! not work.

use crate::config::{Given, Inputs, LogLevel, Override, Profile};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use mermin_export::Color;
use std::path::PathBuf;
use std::time::Duration;

/// Network-flow observability: packets in, exact flow records out.
///
/// Mermin turns the packets that cross this host, or that lie in a capture, into flow records: who talked to whom,
/// from when to when, how many packets and bytes each way. At the end it says what became of every packet that it saw.
#[derive(Debug, Parser)]
#[command(
    name = "mermin",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "First steps: `mermin demo` as root, or `mermin replay FILE`. `mermin COMMAND --help` has examples.",
    after_long_help = after_long_help()
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

fn after_long_help() -> String {
    let mut text = String::from(
        "Examples:\n  sudo mermin demo                       traffic of its own making, and what became of it\n  \
         sudo mermin run -i eth0                live, one line per flow record\n  \
         mermin replay trace.pcap.gz -o json    the same records from a capture, without privileges\n  \
         mermin check -c mermin.yaml            is the configuration right, is the host ready?\n\nExit codes:\n",
    );
    for (exit, meaning) in crate::exit::Exit::ALL {
        text.push_str(&format!("  {:>3}  {meaning}\n", exit.code()));
    }
    text.pop();
    text
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Meter the packets that cross this host, until Ctrl-C or for --duration.
    #[command(after_long_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Meter the packets of captures: pcap or pcapng, also gzipped or zstd.
    #[command(after_long_help = REPLAY_EXAMPLES)]
    Replay(ReplayArgs),
    /// Make two network namespaces and traffic between them, and meter it; needs root.
    ///
    /// Nothing of the host is touched: namespaces, interfaces and traffic belong to this process and are gone when it
    /// ends, however it ends. At the end, what the kernel counted stands beside what Mermin counted.
    Demo(DemoArgs),
    /// Say whether the configuration is right and what this host offers; attaches nothing.
    ///
    /// Lists the source that `run` would use and why, the kernel, the capabilities, the interfaces, and programs of
    /// others on them. Listens for a moment where `run` would, reads the same files and credentials. Exit code 0: `run`
    /// would start, as far as can be told without attaching anything; else the code that `run` would end with: 64 for a
    /// mistake in the configuration, 69 while another agent has the server's port.
    Check(CheckArgs),
    /// Ask a running agent what it does.
    ///
    /// The agent answers when it has a `server` section: `mermin run --set server.listen=127.0.0.1:9464`. Where it is
    /// and what it wants is read from the same configuration, or given by options.
    #[command(after_long_help = STATUS_EXAMPLES)]
    Status(StatusArgs),
    /// Have a running agent read its configuration again, and say what came of it.
    ///
    /// The agent reads the file, profile, environment and options that it was started with, checks them as a whole, changes
    /// what can change while it runs, and names what needs a restart. Where anything is wrong it changes nothing. This
    /// command signals its process (SIGHUP), which it finds by the agent's server; so it wants the rights to do that, in the
    /// same container. The configuration given here is checked first. Exit code 64: it is wrong, or the agent found its own
    /// to be.
    #[command(after_long_help = RELOAD_EXAMPLES)]
    Reload(ReloadArgs),
    /// Say what to change in a running agent's settings, or that nothing needs to be.
    ///
    /// Looks at the agent twice and says which entries of the troubleshooting guide apply to what happened in between,
    /// with the figure behind each and the settings to change. Changes nothing itself.
    #[command(after_long_help = DIAGNOSE_EXAMPLES)]
    Diagnose(DiagnoseArgs),
    /// Take away what runs have left in the kernel: programs, and the maps in which they count.
    ///
    /// With `capture.on_exit: keep` programs stay when the agent ends, and the next one goes on with what they have counted;
    /// this is for when there will be no next one. Takes filters off, too, that a run has left which was killed. Says what it
    /// removed; what was counted there is lost. Refuses while an agent lives that uses it (69). Looks at the network namespace that it
    /// runs in.
    #[command(after_long_help = "Example:\n  sudo mermin cleanup")]
    Cleanup,
    /// Print the default configuration, or its schema.
    Config {
        /// Which.
        #[command(subcommand)]
        what: ConfigCommand,
    },
    /// Print a completion script for a shell.
    #[command(after_long_help = "Example:\n  mermin completions bash > /etc/bash_completion.d/mermin")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page, in roff.
    #[command(after_long_help = "Example:\n  mermin man | man -l -")]
    Man,
}

const RUN_EXAMPLES: &str = "\
Examples:
  sudo mermin run                                     every interface that is up, but lo
  sudo mermin run -i 'veth*' -i eth0 -o json          two globs, JSON lines
  sudo mermin run -i lo --duration 30s -o none --stats stats.json
  mermin run --source af_packet -o text -o json:/var/tmp/flows.json

Records go to standard output, everything else to standard error. The first Ctrl-C ends the run
in good order: the last packets are read, all flows reported. The second ends it at once.";

const REPLAY_EXAMPLES: &str = "\
Examples:
  mermin replay trace.pcap                            one line per flow record
  mermin replay a.pcap.gz b.pcapng -o json            two captures as one stream, JSON lines
  tcpdump -i eth0 -w - -c 1000 | mermin replay -      from standard input

The captures are read in the order given, as one stream with one clock: their packets' own.
Format and compression are recognised by content, not by name.";

const STATUS_EXAMPLES: &str = "\
Examples:
  mermin status                                       the agent at 127.0.0.1:9464
  mermin status -c mermin.yaml                        the agent that was given this configuration
  mermin status --flows 20                            its largest live flows
  mermin status --address https://node-7:9464 --ca ca.pem --token-file token --json";

const RELOAD_EXAMPLES: &str = "\
Examples:
  mermin reload -c mermin.yaml                        the agent that was given this configuration
  mermin reload --pid 4711                            the agent with this process
  kubectl exec POD -- /usr/bin/mermin reload -c /etc/mermin/config/mermin.yaml";

const DIAGNOSE_EXAMPLES: &str = "\
Examples:
  mermin diagnose                                     the agent at 127.0.0.1:9464, for five seconds
  mermin diagnose -c mermin.yaml --for 1m             the agent that was given this configuration
  mermin diagnose --stats stats.json --json           a run that has ended, for programs";

/// `config`'s commands.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print a commented file with every key at its default.
    #[command(after_long_help = "Example:\n  mermin config default > mermin.yaml")]
    Default,
    /// Print the JSON Schema of the configuration file, for editors.
    ///
    /// An editor with a YAML language server uses it after a first line
    /// `# yaml-language-server: $schema=mermin.schema.json`.
    #[command(after_long_help = "Example:\n  mermin config schema > mermin.schema.json")]
    Schema,
}

/// Options of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The interfaces to meter, by name or glob.
    #[command(flatten)]
    pub capture: CaptureArgs,
    /// End after this time, for example 30s or 5m.
    #[arg(long, value_name = "TIME", value_parser = interval)]
    pub duration: Option<Duration>,
    /// Where results go.
    #[command(flatten)]
    pub results: ResultArgs,
    /// Configuration and log.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Options of `replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Captures; `-` is standard input.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Where results go.
    #[command(flatten)]
    pub results: ResultArgs,
    /// Configuration and log.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Options of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// How packets are captured.
    #[arg(long, value_enum, value_name = "SOURCE")]
    pub source: Option<SourceArg>,
    /// Where results go.
    #[command(flatten)]
    pub results: ResultArgs,
    /// Configuration and log.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Options of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// What `run` would be told.
    #[command(flatten)]
    pub capture: CaptureArgs,
    /// Configuration and log.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Options of `status`.
#[derive(Debug, Default, Args)]
pub struct StatusArgs {
    /// Where the agent is.
    #[command(flatten)]
    pub agent: AgentArgs,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// List at most N live flows instead.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=1000))]
    pub flows: Option<u16>,
    /// Which flows come first.
    #[arg(long, value_enum, value_name = "ORDER", default_value_t, requires = "flows")]
    pub order: OrderArg,
    /// Configuration and log.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Options of `reload`.
#[derive(Debug, Default, Args)]
pub struct ReloadArgs {
    /// Where the agent is.
    #[command(flatten)]
    pub agent: AgentArgs,
    /// The agent's process, where it has no server that tells it; what came of it is then in its log alone.
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pub pid: Option<i32>,
    /// Configuration and log.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Options of `diagnose`.
#[derive(Debug, Args)]
pub struct DiagnoseArgs {
    /// Where the agent is.
    #[command(flatten)]
    pub agent: AgentArgs,
    /// Time between the two looks, for example 5s or 1m; 1s at least.
    #[arg(long = "for", value_name = "TIME", value_parser = time_between_looks, default_value = "5s")]
    pub time: Duration,
    /// Read the final statistics of a run instead; `-` is standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["address", "time", "token_file", "ca"])]
    pub stats: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Configuration and log.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Where a running agent is, and how to speak to it.
#[derive(Debug, Default, Args)]
pub struct AgentArgs {
    /// Where the agent listens: HOST:PORT, with https:// in front where it has a certificate.
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<String>,
    /// The file with the agent's token.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Certificates of the authorities that may have certified the agent, in PEM.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

/// Which flows come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OrderArg {
    /// The most bytes, both ways.
    #[default]
    Bytes,
    /// The most packets, both ways.
    Packets,
    /// The latest packet.
    Recent,
}

impl OrderArg {
    /// As in a request.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Packets => "packets",
            Self::Recent => "recent",
        }
    }
}

/// Which packets.
#[derive(Clone, Debug, Default, Args)]
pub struct CaptureArgs {
    /// Meter interfaces whose name matches; may be repeated. Replaces capture.interfaces.
    #[arg(short, long = "interface", value_name = "GLOB")]
    pub interfaces: Vec<String>,
    /// How packets are captured; auto prefers eBPF and says why if it can't.
    #[arg(long, value_enum, value_name = "SOURCE")]
    pub source: Option<SourceArg>,
}

/// A source of live packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SourceArg {
    /// eBPF if it works, else AF_PACKET.
    Auto,
    /// eBPF programs on tcx or clsact; needs root or three capabilities.
    Ebpf,
    /// AF_PACKET sockets; need CAP_NET_RAW.
    #[value(name = "af_packet")]
    AfPacket,
}

impl SourceArg {
    /// As in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Ebpf => "ebpf",
            Self::AfPacket => "af_packet",
        }
    }
}

/// Where results go.
#[derive(Clone, Debug, Default, Args)]
pub struct ResultArgs {
    /// Write records as KIND (text, json, log, otlp, kafka, ipfix, none), to a file, collector or topic if a path, URL,
    /// HOST:PORT or brokers/topic follows; may be repeated. Replaces export.
    #[arg(short, long = "output", value_name = "KIND[:PATH]")]
    pub outputs: Vec<String>,
    /// Write the final statistics as one JSON object; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    pub stats: Option<PathBuf>,
}

/// Configuration and log.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Configuration and log")]
pub struct CommonArgs {
    /// Read this configuration file; without it, none is read.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Start from a set of tuned settings.
    #[arg(long, value_enum, value_name = "NAME", hide_possible_values = false)]
    pub profile: Option<Profile>,
    /// Set any configuration key, for example --set pipeline.flow_workers=4; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Log more: -v for debug, -vv for trace.
    #[arg(short, long, action = ArgAction::Count, conflicts_with = "log_level")]
    pub verbose: u8,
    /// Log events of this level and above: error, warn, info, debug or trace.
    #[arg(long, value_enum, value_name = "LEVEL", hide_possible_values = true)]
    pub log_level: Option<LogLevel>,
    /// The form of log lines on standard error: text, or json for one object a line.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t, hide_possible_values = true)]
    pub log_format: LogFormat,
    /// Colours: always, never, or auto: on a terminal, unless NO_COLOR is set.
    #[arg(long, value_name = "WHEN", value_parser = color(), default_value = "auto", hide_possible_values = true)]
    pub color: Color,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The words of `--color`.
fn color() -> impl TypedValueParser<Value = Color> {
    PossibleValuesParser::new(["auto", "always", "never"]).map(|word| match word.as_str() {
        "always" => Color::Always,
        "never" => Color::Never,
        _ => Color::Auto,
    })
}

fn interval(text: &str) -> Result<Duration, String> {
    text.parse::<mermin_flow::Interval>().map(|interval| interval.0).map_err(|error| error.to_string())
}

fn time_between_looks(text: &str) -> Result<Duration, String> {
    let time = interval(text)?;
    if time < Duration::from_secs(1) {
        return Err(format!(
            "`{text}` is too short; how busy processors are shows in a second at least: --for 1s"
        ));
    }
    Ok(time)
}

impl CommonArgs {
    /// The configuration's layers, but for those of other option groups.
    #[must_use]
    pub fn inputs(&self, environment: Vec<(String, String)>) -> Inputs {
        let mut overrides = Vec::new();
        let mut level = |level: LogLevel, option: String| {
            overrides.push(Override {
                key: "log_level",
                value: Given::Text(level.name().to_owned()),
                option,
            });
        };
        match (self.log_level, self.verbose) {
            (Some(given), _) => level(given, format!("--log-level {}", given.name())),
            (None, 0) => {}
            (None, 1) => level(LogLevel::Debug, "-v".to_owned()),
            (None, _) => level(LogLevel::Trace, "-vv".to_owned()),
        }
        Inputs {
            profile: self.profile,
            file: self.config.clone(),
            environment,
            set: self.set.clone(),
            overrides,
        }
    }
}

impl CaptureArgs {
    /// The interfaces as they were asked for.
    #[must_use]
    pub fn interface_options(&self) -> Option<String> {
        let options = self.interfaces.iter().map(|glob| format!("-i {glob}")).collect::<Vec<_>>();
        (!options.is_empty()).then(|| options.join(" "))
    }

    /// The options as settings of the configuration.
    #[must_use]
    pub fn overrides(&self) -> Vec<Override> {
        let mut overrides = Vec::new();
        if let Some(option) = self.interface_options() {
            let list = |key, list| Override { key, value: Given::List(list), option: option.clone() };
            overrides.push(list("capture.interfaces.include", self.interfaces.clone()));
            overrides.push(list("capture.interfaces.exclude", Vec::new()));
        }
        overrides.extend(self.source.map(SourceArg::setting));
        overrides
    }
}

impl SourceArg {
    /// The option as a setting of the configuration.
    #[must_use]
    pub fn setting(self) -> Override {
        Override {
            key: "capture.source",
            value: Given::Text(self.name().to_owned()),
            option: format!("--source {}", self.name()),
        }
    }
}
