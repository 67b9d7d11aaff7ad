//! A message as kcat prints it, read back.

/// Numbers, then bytes of those lengths; headers last, as kcat has no length for them.
pub(super) const FORMAT: &str = "%p %o %T %K %S\n%k%s\n%h\n";

/// A message of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Which partition it is in.
    pub partition: u32,
    /// Its place there.
    pub offset: u64,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// Its key, where it has one.
    pub key: Option<Vec<u8>>,
    /// Its value, where it has one.
    pub payload: Option<Vec<u8>>,
    /// Its headers as text. kcat puts a comma between them: one in a value is read as the next header's begin.
    pub headers: Vec<(String, String)>,
}

impl Message {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The key as text.
    #[must_use]
    pub fn key_text(&self) -> Option<&str> {
        std::str::from_utf8(self.key.as_deref()?).ok()
    }
}

/// All messages, or the byte at which the output is none.
pub(super) fn read(output: &[u8]) -> Result<Vec<Message>, usize> {
    let mut rest = output;
    let mut messages = Vec::new();
    while !rest.is_empty() {
        messages.push(message(&mut rest).ok_or(output.len() - rest.len())?);
    }
    Ok(messages)
}

fn message(rest: &mut &[u8]) -> Option<Message> {
    let mut numbers = line(rest)?.split(' ');
    let (partition, offset) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
    let timestamp = numbers.next()?.parse().ok()?;
    // -1 where there is none.
    let lengths = [numbers.next()?, numbers.next()?].map(|number| number.parse::<i64>().ok());
    let key = part(rest, lengths[0]?)?;
    let payload = part(rest, lengths[1]?)?;
    if !line(rest)?.is_empty() {
        return None;
    }
    let headers = line(rest)?;
    let headers = headers.split(',').filter(|header| !header.is_empty()).map(|header| {
        let (name, value) = header.split_once('=').unwrap_or((header, ""));
        (name.to_owned(), value.to_owned())
    });
    Some(Message { partition, offset, timestamp, key, payload, headers: headers.collect() })
}

fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let (line, after) = rest.split_at(end);
    *rest = &after[1..];
    std::str::from_utf8(line).ok()
}

#[expect(clippy::option_option, reason = "the outer one is of the reading, the inner one of the message")]
fn part(rest: &mut &[u8], length: i64) -> Option<Option<Vec<u8>>> {
    let Ok(length) = usize::try_from(length) else { return Some(None) };
    let (part, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(Some(part.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn bytes_are_exact() {
        let output = b"2 17 1700000000000 3 4\nk\nyv\n\0\xff\na=1,b=two\n0 0 -1 -1 -1\n\n\n";
        let messages = read(output).unwrap();
        assert_eq!((messages[0].partition, messages[0].offset), (2, 17));
        assert_eq!(messages[0].key_text(), Some("k\ny"));
        assert_eq!(messages[0].payload.as_deref(), Some(b"v\n\0\xff".as_slice()));
        assert_eq!((messages[0].header("a"), messages[0].header("b")), (Some("1"), Some("two")));
        assert_eq!((&messages[1].key, &messages[1].payload, messages[1].headers.len()), (&None, &None, 0));
    }

    #[test]
    fn what_is_cut_off_is_no_message() {
        assert_eq!(read(b"0 0 5 0 0\n\n\n0 1 5 0 9\nabc\n\n"), Err(22));
    }
}
