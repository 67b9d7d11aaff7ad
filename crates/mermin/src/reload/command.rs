//! `mermin reload`: has a running agent read its configuration again, and says what came of it.
//!
//! The agent is signalled; the server only tells. A configuration that is given with `-c` is checked first, so that a wrong
//! one is told here and the agent isn't bothered.

use crate::Surroundings;
use crate::cli::ReloadArgs;
use crate::config::{Config, lower};
use crate::exit::{Exit, Stop};
use crate::output::print;
use crate::reload::hangup::is_in_mask;
use crate::status::{Reply, Target, ask};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// How long an agent may take: its files may be slow, and what it changes waits for packets that are under way.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at whether it has told.
const LOOK: Duration = Duration::from_millis(50);

/// Runs the command.
pub(crate) fn reload(
    args: &ReloadArgs,
    config: &Config,
    surroundings: &mut Surroundings<'_>,
) -> Result<Exit, Stop> {
    let target = Target::find(&args.agent, config, "reload")?;
    let Some(pid) = args.pid else {
        let status = look(&target)?;
        let (before, pid) = (number(&status, &target)?, pid(&status)?);
        signal(pid)?;
        return await_answer(&target, before, surroundings);
    };
    // Its server, if it has one, says what came of it.
    let status = look(&target).ok().filter(|status| status["pid"].as_i64() == Some(pid.into()));
    let before = status.map(|status| number(&status, &target)).transpose()?;
    signal(pid)?;
    match before {
        Some(before) => await_answer(&target, before, surroundings),
        None => {
            let sentence = "was asked to read its configuration again; its log says what came of it";
            print(surroundings.out, &format!("Process {pid} {sentence}\n"))
        }
    }
}

fn look(target: &Target) -> Result<Value, Stop> {
    let Reply { status, body } = ask(target, "/status")?;
    match status.as_u16() {
        200 => serde_json::from_str(&body).map_err(|_| target.unexpected(status, &body)),
        401 => Err(target.wants_token()),
        _ => Err(target.unexpected(status, &body)),
    }
}

/// How many reloads it has told of.
fn number(status: &Value, target: &Target) -> Result<u64, Stop> {
    status["reload"]["number"].as_u64().ok_or_else(|| {
        let what = format!("what runs at {} does not read its configuration again", target.authority);
        Stop::new(Exit::Unavailable, what).help("only a live run does, of this version: mermin run")
    })
}

fn pid(status: &Value) -> Result<i32, Stop> {
    let pid = status["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    pid.ok_or_else(|| {
        Stop::new(Exit::Unavailable, "the agent does not tell its process").help("mermin reload --pid PID")
    })
}

/// Asks the process, if it is an agent. Whoever answers as one may name any process, and most end by this signal.
fn signal(pid: i32) -> Result<(), Stop> {
    let nobody = || {
        Stop::new(Exit::Unavailable, format!("process {pid} is no agent that can be asked here")).help(
            "where the agent runs in a container, ask there: kubectl exec POD -- /usr/bin/mermin reload",
        )
    };
    let handle = (pid > 0).then(|| Pid::from_raw(pid)).flatten().ok_or_else(nobody)?;
    // The number may be another process's a moment later; this is the same one for good.
    let process = pidfd_open(handle, PidfdFlags::empty()).map_err(|_| nobody())?;
    if !is_agent(pid) {
        return Err(nobody());
    }
    pidfd_send_signal(process, Signal::HUP).map_err(|error| match error {
        Errno::PERM => Stop::new(Exit::NoPermission, format!("may not signal process {pid}"))
            .help("ask as root, or as the user that the agent runs as"),
        Errno::SRCH => nobody(),
        error => {
            Stop::new(Exit::Unavailable, format!("can't signal process {pid}: {}", lower(&error.into())))
        }
    })
}

/// Whether a process has this program's name and handles SIGHUP.
fn is_agent(pid: i32) -> bool {
    let name = |of: &str| fs::read_to_string(format!("/proc/{of}/comm")).ok();
    let pid = pid.to_string();
    is_in_mask(&pid, "SigCgt") && name("self").is_some_and(|own| name(&pid) == Some(own))
}

/// Waits until it has told of one more.
fn await_answer(target: &Target, before: u64, surroundings: &mut Surroundings<'_>) -> Result<Exit, Stop> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        let status = look(target)?;
        if number(&status, target)? > before {
            return tell(&status["reload"]["last"], surroundings);
        }
        thread::sleep(LOOK);
    }
    let what = format!("the agent was asked, and has not told in {} s what came of it", PATIENCE.as_secs());
    Err(Stop::new(Exit::Unavailable, what)
        .help("its log will; until then `mermin status` has the one before"))
}

fn tell(last: &Value, surroundings: &mut Surroundings<'_>) -> Result<Exit, Stop> {
    if last["result"] != "refused" {
        let sentence = last["sentence"].as_str().unwrap_or_default();
        return print(surroundings.out, &format!("{sentence}\n"));
    }
    let problems = last["problems"].as_array().map(Vec::as_slice).unwrap_or_default();
    for problem in problems.iter().filter_map(Value::as_str) {
        drop(writeln!(surroundings.err, "{problem}\n"));
    }
    if last["wrong"] == false {
        let what = "not reloaded: the agent could not do it and changed nothing";
        return Err(Stop::new(Exit::Unavailable, what).help("see to what is said above, and ask again"));
    }
    Err(Stop::new(Exit::Usage, "not reloaded: the agent found its configuration wrong and changed nothing")
        .help("put right what is said above, and ask again"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_is_signalled() {
        // Neither this process, which ends by the signal, nor one that never was.
        let own = i32::try_from(std::process::id()).unwrap();
        for pid in [own, 1, 0, -1, i32::MAX] {
            let stop = signal(pid).unwrap_err();
            assert_eq!(stop.exit(), Exit::Unavailable, "{pid}");
            assert!(stop.to_string().contains(&format!("process {pid} is no agent")), "{stop}");
        }
    }
}
