//! `mermin status`: what a running agent does, asked over its HTTP server.
//!
//! The page for people is made by the agent that is asked, so that it fits what that agent knows, whatever version asks.

mod client;
mod page;
mod target;

pub(crate) use client::{Reply, ask};
pub(crate) use page::page;
pub(crate) use target::Target;

use crate::Surroundings;
use crate::cli::StatusArgs;
use crate::config::Config;
use crate::exit::{Exit, Stop};
use crate::output::print;
use std::io::IsTerminal;

/// Runs the command.
pub(crate) fn status(
    args: &StatusArgs,
    config: &Config,
    surroundings: &mut Surroundings<'_>,
) -> Result<Exit, Stop> {
    let target = Target::find(&args.agent, config, "status")?;
    let terminal = std::io::stdout().is_terminal();
    let color = args.common.color.wanted(terminal);
    let columns = if terminal {
        rustix::termios::tcgetwinsize(std::io::stdout()).map_or(0, |size| size.ws_col)
    } else {
        0
    };
    let look = format!("format=text&color={color}");
    let path = match (args.flows, args.json) {
        (None, true) => "/status".to_owned(),
        (None, false) => format!("/status?{look}"),
        (Some(limit), true) => format!("/flows?limit={limit}&order={}", args.order.name()),
        (Some(limit), false) => {
            format!("/flows?limit={limit}&order={}&columns={columns}&{look}", args.order.name())
        }
    };
    let Reply { status, body } = ask(&target, &path)?;
    match status.as_u16() {
        200 => print(surroundings.out, &body),
        401 => Err(target.wants_token()),
        _ => Err(target.unexpected(status, &body)),
    }
}
