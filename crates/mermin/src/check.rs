//! `mermin check`: whether `run` would start here, and how. Attaches nothing, sends nothing, makes no file; what can be
//! tried without that is tried as `run` does it.

use crate::Surroundings;
use crate::cli::CheckArgs;
use crate::config::Config;
use crate::exit::{Exit, Stop};
use crate::host::{self, Capabilities};
use crate::live::selected;
use crate::output::print;
use crate::outputs;
use crate::server::Bound;
use mermin_capture::ebpf::{Left, hooks, left};
use mermin_capture::interfaces::Interface;
use mermin_capture::{FilterAction, FilterRules, SourceKind};
use std::fmt::Write;

/// The first kernel that is supported, and the first with tcx.
const OLDEST: (u32, u32) = (5, 15);
const TCX: (u32, u32) = (6, 6);

/// Runs the command.
pub(crate) fn check(
    args: &CheckArgs,
    config: &Config,
    surroundings: &mut Surroundings<'_>,
) -> Result<Exit, Stop> {
    let capabilities = Capabilities::of_this_process();
    let mut text = String::new();
    let file = args.common.config.as_ref().map(|path| path.display().to_string());
    line(&mut text, "configuration", &format!("fine ({})", file.as_deref().unwrap_or("no file: defaults")));
    let mut warnings = Vec::new();
    let outputs = outputs::check(config, &surroundings.environment, |warning| warnings.push(warning));
    warnings.iter().for_each(|warning| line(&mut text, "outputs", warning));
    for plan in outputs::plans(config, &surroundings.environment) {
        for (index, description) in plan.descriptions().iter().enumerate() {
            line(&mut text, if index == 0 { plan.name() } else { "" }, description);
        }
        for (index, (name, value)) in plan.resource().iter().enumerate() {
            line(&mut text, if index == 0 { "resource" } else { "" }, &format!("{name}={value}"));
        }
    }
    filters(&mut text, &config.capture.filters);
    let (verdict, missing) = source(config.capture.source, capabilities);
    line(&mut text, "source", &verdict);
    kernel(&mut text);
    for (index, (name, there)) in capabilities.all().into_iter().enumerate() {
        let head = if index == 0 { "capabilities" } else { "" };
        line(&mut text, head, &format!("{name:<14} {}", if there { "yes" } else { "no" }));
    }
    // Bound for a moment.
    let bound = Bound::bind(config).map(drop);
    line(&mut text, "server", &server(config, bound.as_ref().err()));
    let kubernetes = cluster(config);
    line(&mut text, "kubernetes", &kubernetes.as_ref().map_or_else(first_line, Clone::clone));
    line(&mut text, "conntrack", &conntrack(config));
    let interfaces = selected(&args.capture, config);
    if let Ok((interfaces, _)) = &interfaces {
        list(&mut text, interfaces);
    }
    for (head, name) in [("limits", "Max locked memory"), ("", "Max open files")] {
        let limit = host::limit(name).unwrap_or_else(|| "unknown".to_owned());
        line(&mut text, head, &format!("{:<14} {limit}", name.trim_start_matches("Max ")));
    }
    line(&mut text, "kept", &left().as_ref().map_or_else(|| "nothing".to_owned(), kept));
    let printed = print(surroundings.out, &text)?;
    // In the order in which `run` would come to them.
    let _ = interfaces?;
    bound?;
    missing.map_or(Ok(()), Err)?;
    outputs?;
    let _ = kubernetes?;
    Ok(printed)
}

fn line(text: &mut String, head: &str, rest: &str) {
    let _ = writeln!(text, "{head:<15} {rest}");
}

/// In the order in which they are asked, and what becomes of packets that none of them matches.
fn filters(text: &mut String, rules: &FilterRules) {
    let mut head = "filters";
    for rule in rules.rules() {
        line(text, head, &format!("{:<14} {rule}", rule.name.to_string()));
        head = "";
    }
    let otherwise = match (rules.rules().is_empty(), rules.otherwise()) {
        (true, _) => "none: every packet is metered",
        (false, FilterAction::Include) => "what no rule matches is metered",
        (false, FilterAction::Exclude) => "what no rule matches is left out",
    };
    line(text, head, otherwise);
}

/// What runs have left in this network namespace, and who has it.
fn kept(left: &Left) -> String {
    let on = if left.interfaces.is_empty() { "no interface".to_owned() } else { left.interfaces.join(", ") };
    let who = match &left.holder {
        Some(holder) => format!("used by {holder}"),
        None => {
            "the next run with capture.on_exit: keep goes on with it; `mermin cleanup` removes it".to_owned()
        }
    };
    let books = left.books.map(|books| {
        let [due, settled, lost] = [books.due, books.settled, books.lost].map(|tally| tally.packets);
        format!("; {due} packets read so far, {settled} settled, {lost} lost by crashes")
    });
    format!("programs on {on} ({}){}; {who}", left.folder, books.unwrap_or_default())
}

fn first_line(stop: &Stop) -> String {
    stop.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Whom `run` would ask for names.
fn cluster(config: &Config) -> Result<String, Stop> {
    match outputs::cluster(config, true)? {
        Some(cluster) => {
            cluster.try_credentials().map_err(|error| outputs::no_cluster(&error))?;
            Ok(cluster.server())
        }
        None => Ok("not asked".to_owned()),
    }
}

/// Whether `run` would know what this host translates. It goes on without.
fn conntrack(config: &Config) -> String {
    if !(config.enrich.enabled && config.enrich.conntrack.enabled) {
        return "not asked".to_owned();
    }
    mermin_enrich::try_conntrack().map_or_else(|error| error.to_string(), |()| "asked".to_owned())
}

/// What `run` would listen on, and why it can't.
fn server(config: &Config, stop: Option<&Stop>) -> String {
    let Some(server) = config.server.as_ref().filter(|server| server.enabled) else {
        return "none: nothing would listen".to_owned();
    };
    let with = |what: bool, name: &str| format!("{} {name}", if what { "with" } else { "without" });
    let problem = stop.map(|stop| format!("; {}", first_line(stop))).unwrap_or_default();
    format!(
        "{} {}, {}{problem}",
        server.listen.0,
        with(server.tls.is_some(), "TLS"),
        with(server.token_file.is_some(), "token")
    )
}

/// Which source `run` would use and why; an error where it would use none.
fn source(wanted: SourceKind, capabilities: Capabilities) -> (String, Option<Stop>) {
    let missing = capabilities.missing_for_ebpf();
    let stop = |what: String| Some(Stop::new(Exit::NoPermission, what).help(host::how_to_get_permission()));
    let lacks = missing.join(", ");
    match (wanted, missing.is_empty(), capabilities.allow_af_packet()) {
        (SourceKind::Auto | SourceKind::Ebpf, true, _) => {
            ("eBPF: every capability is there".to_owned(), None)
        }
        (SourceKind::Ebpf, false, _) => {
            ("none".to_owned(), stop(format!("eBPF needs {lacks}, which this process lacks")))
        }
        (SourceKind::Auto, false, true) => (format!("AF_PACKET, because eBPF needs {lacks}"), None),
        (SourceKind::AfPacket, _, true) => ("AF_PACKET, as configured".to_owned(), None),
        (SourceKind::AfPacket, _, false) => {
            ("none".to_owned(), stop("AF_PACKET needs CAP_NET_RAW, which this process lacks".to_owned()))
        }
        (SourceKind::Auto, false, false) => (
            "none".to_owned(),
            stop(format!(
                "live capture needs {lacks} for eBPF, or CAP_NET_RAW for AF_PACKET; this process has neither"
            )),
        ),
    }
}

fn kernel(text: &mut String) {
    let release = host::kernel_release();
    let version = host::version(&release);
    let verdict = match version {
        Some(version) if version >= OLDEST => "supported",
        Some(_) => "older than 5.15: eBPF may not load",
        None => "unknown",
    };
    line(text, "kernel", &format!("{:<14} {release}, {verdict}", "release"));
    line(text, "", &format!("{:<14} {}", "BTF", if host::has_btf() { "yes" } else { "no: eBPF needs it" }));
    let tcx =
        if version.is_some_and(|version| version >= TCX) { "yes" } else { "no (Linux 6.6): clsact is used" };
    line(text, "", &format!("{:<14} {tcx}", "tcx"));
}

fn list(text: &mut String, interfaces: &[Interface]) {
    for (index, interface) in interfaces.iter().enumerate() {
        let head = if index == 0 { "interfaces" } else { "" };
        match hooks(&interface.name) {
            Ok(others) if others.is_empty() => {
                line(text, head, &format!("{:<14} no other programs on its hooks", interface.name));
            }
            Ok(others) => {
                line(
                    text,
                    head,
                    &format!("{:<14} other programs may hide or change packets:", interface.name),
                );
                for other in others {
                    line(text, "", &format!("  {:<12} {} (id {})", other.hook.name(), other.name, other.id));
                }
            }
            Err(_) => {
                line(text, head, &format!("{:<14} programs on its hooks can't be listed", interface.name));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn what_would_be_listened_on_is_told() {
        let told = |text: &str| {
            let config = crate::config::parse(text).unwrap();
            server(&config, Bound::bind(&config).err().as_ref())
        };
        assert_eq!(told(""), "none: nothing would listen");
        assert_eq!(told("server: {enabled: false}"), "none: nothing would listen");
        assert_eq!(told("server: {listen: '[::1]:0'}"), "[::1]:0 without TLS, without token");
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let problem = format!("{address} without TLS, without token; error: can't listen on {address}: ");
        assert_eq!(told(&format!("server: {{listen: '{address}'}}")), problem + "address already in use");
    }

    #[test]
    fn filters_are_told_in_their_order() {
        let told = |filters: &str| {
            let config = crate::config::parse(&format!("capture: {{filters: {filters}}}")).unwrap();
            let mut text = String::new();
            super::filters(&mut text, &config.capture.filters);
            text
        };
        assert_eq!(told("[]"), "filters         none: every packet is metered\n");
        let rules = "[{name: no_dns, action: exclude, match: {ports: [53, 6000-6063], protocols: [udp, 99]}}, \
                     {name: ours, action: include, match: {networks: [10.0.0.0/8], interfaces: ['eth*']}}]";
        let expected = "filters         no_dns         exclude ports 53, 6000-6063 protocols udp, 99\n\
                        \x20               ours           include networks 10.0.0.0/8 interfaces eth*\n\
                        \x20               what no rule matches is left out\n";
        assert_eq!(told(rules), expected);
        let all = told("[{name: nothing, action: exclude}]");
        assert!(all.starts_with("filters         nothing        exclude all\n"), "{all}");
        assert!(all.ends_with(" what no rule matches is metered\n"), "{all}");
    }

    #[test]
    fn the_source_is_told_with_its_reason() {
        let with = |digits: &str| Capabilities::in_status(&format!("CapEff:\t{digits}\n"));
        let (none, raw, all) = (with("0"), with("2000"), with("1ffffffffff"));
        assert_eq!(source(SourceKind::Auto, all).0, "eBPF: every capability is there");
        assert_eq!(
            source(SourceKind::Auto, raw).0,
            "AF_PACKET, because eBPF needs CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON"
        );
        for (wanted, capabilities) in
            [(SourceKind::Auto, none), (SourceKind::Ebpf, raw), (SourceKind::AfPacket, none)]
        {
            let (verdict, stop) = source(wanted, capabilities);
            assert_eq!((verdict.as_str(), stop.unwrap().exit()), ("none", Exit::NoPermission));
        }
        assert!(source(SourceKind::AfPacket, raw).1.is_none());
    }
}
