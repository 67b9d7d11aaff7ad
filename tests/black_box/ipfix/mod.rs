//! Records at collectors of IPFIX and NetFlow version 9: goflow2, nfcapd, tshark, and a reader of the tests' own.

mod captures;
mod collectors;
mod connections;
mod path;
mod sighting;
mod tshark;

use crate::otlp::{amount, book};
use mermin_tests::ipfix::Reader;
use mermin_tests::program::{Outcome, Program};
use mermin_tests::servers::ipfix_tap::Datagram;
use std::net::SocketAddr;

/// How directions become data records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Both,
    Each,
    NetFlow9,
}

const FORMS: [Form; 3] = [Form::Both, Form::Each, Form::NetFlow9];

impl Form {
    fn set(self, program: Program) -> Program {
        match self {
            Self::Both => program,
            Self::Each => program.set("export.ipfix.directions=each"),
            Self::NetFlow9 => program.set("export.ipfix.version=netflow9"),
        }
    }
}

/// A replay to JSON lines and to a collector. It waits for its collector for good: after a minute it is told to end.
fn replay(collector: SocketAddr, form: Form) -> Program {
    let program = Program::new("replay").under(&["timeout", "--signal=INT", "60"]);
    form.set(program.args(["-o", &format!("ipfix:{collector}")])).set("pipeline.shutdown_timeout=5s")
}

/// The run went well, and its book says that all records were delivered.
fn all_delivered(outcome: &Outcome) {
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let book = book(outcome, "ipfix");
    let released = [
        outcome.records().len() as u64,
        outcome.number("/ledger/released/packets"),
        outcome.number("/ledger/released/bytes"),
    ];
    assert_eq!((amount(&book["handed"]), amount(&book["delivered"])), (released, released), "{book}");
    assert_eq!(book["dropped"], serde_json::json!({}), "{book}");
}

/// What each session brought, in the order of their beginning.
fn sessions(datagrams: &[Datagram]) -> Vec<(SocketAddr, Reader)> {
    let mut sessions: Vec<(SocketAddr, Reader)> = Vec::new();
    for datagram in datagrams {
        let known = sessions.iter().position(|(from, _)| *from == datagram.from);
        let at = known.unwrap_or_else(|| {
            assert_eq!(Reader::number(&datagram.bytes), Some(0), "a session begins with 0");
            sessions.push((datagram.from, Reader::default()));
            sessions.len() - 1
        });
        sessions[at].1.take(&datagram.bytes).unwrap_or_else(|error| panic!("{}: {error}", datagram.from));
    }
    sessions
}
