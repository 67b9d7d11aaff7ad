//! As much of Kafka's protocol as makes a topic: one CreateTopics request of version 2, the oldest that Kafka 4 takes.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const CREATE_TOPICS: [u8; 4] = [0, 19, 0, 2];
const PATIENCE: Duration = Duration::from_secs(30);

/// Makes a topic of one replica; what the broker says against it is the error.
pub(super) fn create_topic(
    broker: SocketAddr,
    name: &str,
    partitions: u16,
    config: &[(&str, &str)],
) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&broker, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = request(name, partitions, config);
    stream.write_all(&length(request.len()))?;
    stream.write_all(&request)?;
    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let mut answer = Vec::new();
    stream.take(u32::from_be_bytes(size).into()).read_to_end(&mut answer)?;
    match refusal(&answer) {
        Some((0, _)) => Ok(()),
        Some((code, said)) => Err(io::Error::other(format!("error {code}: {said}"))),
        None => Err(io::Error::other(format!("not understood: {answer:?}"))),
    }
}

fn request(name: &str, partitions: u16, config: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = CREATE_TOPICS.to_vec();
    // Correlation and the client's name.
    bytes.extend(length(1));
    bytes.extend(text("tests"));
    bytes.extend(length(1));
    bytes.extend(text(name));
    bytes.extend(length(partitions.into()));
    bytes.extend(1_u16.to_be_bytes());
    // No replicas that are placed by hand.
    bytes.extend(length(0));
    bytes.extend(length(config.len()));
    for (name, value) in config {
        bytes.extend([text(name), text(value)].concat());
    }
    bytes.extend(u32::try_from(PATIENCE.as_millis()).expect("it is short").to_be_bytes());
    // Not only to be checked.
    bytes.push(0);
    bytes
}

/// The error code, 0 for none, and what is said about it. Before it stand the correlation, a throttle time, how many
/// topics are answered and the topic's name.
fn refusal(answer: &[u8]) -> Option<(u16, String)> {
    let word = |at: usize| Some(u16::from_be_bytes(answer.get(at..at + 2)?.try_into().ok()?));
    let name = usize::from(word(12)?);
    let code = word(14 + name)?;
    let said = answer.get(18 + name..).unwrap_or_default();
    Some((code, String::from_utf8_lossy(said).into_owned()))
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).expect("tests are small").to_be_bytes()
}

fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("tests are small");
    [&length.to_be_bytes(), text.as_bytes()].concat()
}
