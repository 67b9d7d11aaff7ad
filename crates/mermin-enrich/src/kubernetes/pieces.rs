//! Cuts JSON into pieces while it arrives, so that of a list of 50 000 pods one is in memory at a time.
//!
//! It finds where values begin and end, and no more: each piece is read by serde_json, which checks it.

use std::ops::Range;

/// A part of a JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece<'t> {
    /// A member: its key, as it is written, and the text of its value.
    Member(&'t [u8], &'t [u8]),
    /// The text of an element of the array `items`.
    Item(&'t [u8]),
    /// The object is complete; another may follow.
    End,
}

/// Text that is not made of JSON objects, or a value of more than 16 MiB: etcd keeps none above 1.5 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the JSON that was expected")]
pub(crate) struct Malformed;

/// A value may be so long, in bytes.
const VALUE_MAX: usize = 16 << 20;

/// What is expected next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Expected {
    #[default]
    Object,
    Key,
    Colon,
    Value,
    /// Behind a member.
    Comma,
    Item,
    /// Behind an element.
    ItemComma,
}

/// A value that is being skipped.
#[derive(Clone, Copy, Debug, Default)]
struct Open {
    start: usize,
    nesting: u32,
    in_text: bool,
    escaped: bool,
}

/// Takes the text of objects, one after the other, in parts.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    text: Vec<u8>,
    /// All before it has been looked at.
    at: usize,
    expected: Expected,
    open: Option<Open>,
    key: Range<usize>,
}

impl Pieces {
    /// Whether all objects that have begun are complete.
    pub(crate) fn are_whole(&self) -> bool {
        self.expected == Expected::Object
    }

    /// Takes the next part of the text and hands on what is complete now.
    ///
    /// # Errors
    /// [`Malformed`]; whatever `hand_on` returns.
    pub(crate) fn feed<E: From<Malformed>>(
        &mut self,
        part: &[u8],
        mut hand_on: impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.text.extend_from_slice(part);
        while self.at < self.text.len() {
            match &mut self.open {
                Some(open) => match open.skip(&self.text, self.at) {
                    Ok(next) => self.at = next,
                    Err(end) => {
                        let value = open.start..end;
                        self.at = end;
                        self.open = None;
                        self.complete(value, &mut hand_on)?;
                    }
                },
                None => {
                    if self.step()? {
                        hand_on(Piece::End)?;
                    }
                }
            }
        }
        self.forget();
        if self.text.len() > VALUE_MAX {
            return Err(Malformed.into());
        }
        Ok(())
    }

    /// One byte outside of values. Whether it ends the object.
    fn step(&mut self) -> Result<bool, Malformed> {
        let byte = self.text[self.at];
        let open = Open { start: self.at, ..Open::default() };
        let is_items = || self.text.get(self.key.clone()) == Some(b"items");
        match (self.expected, byte) {
            (_, b' ' | b'\t' | b'\n' | b'\r') => {}
            (Expected::Object, b'{') => self.expected = Expected::Key,
            (Expected::Key, b'"') => {
                self.open = Some(open);
                return Ok(false);
            }
            (Expected::Colon, b':') => self.expected = Expected::Value,
            (Expected::Value, b'[') if is_items() => self.expected = Expected::Item,
            (Expected::Comma, b',') => self.expected = Expected::Key,
            (Expected::Key | Expected::Comma, b'}') => {
                self.expected = Expected::Object;
                self.at += 1;
                return Ok(true);
            }
            (Expected::ItemComma, b',') => self.expected = Expected::Item,
            (Expected::Item | Expected::ItemComma, b']') => self.expected = Expected::Comma,
            (Expected::Value | Expected::Item, b',' | b':' | b'}' | b']') => return Err(Malformed),
            (Expected::Value | Expected::Item, _) => {
                self.open = Some(open);
                return Ok(false);
            }
            _ => return Err(Malformed),
        }
        self.at += 1;
        Ok(false)
    }

    fn complete<E>(
        &mut self,
        value: Range<usize>,
        hand_on: &mut impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        match self.expected {
            Expected::Key => {
                self.key = value.start + 1..value.end - 1;
                self.expected = Expected::Colon;
                Ok(())
            }
            Expected::Item => {
                self.expected = Expected::ItemComma;
                hand_on(Piece::Item(&self.text[value]))
            }
            _ => {
                self.expected = Expected::Comma;
                hand_on(Piece::Member(&self.text[self.key.clone()], &self.text[value]))
            }
        }
    }

    /// Gives up the text that has been handed on.
    fn forget(&mut self) {
        let keeps_key = matches!(self.expected, Expected::Colon | Expected::Value);
        let used = match (keeps_key, self.open) {
            (true, _) => self.key.start,
            (false, Some(open)) => open.start,
            (false, None) => self.at,
        };
        self.text.drain(..used);
        self.at -= used;
        self.key = if keeps_key { 0..self.key.len() } else { 0..0 };
        if let Some(open) = &mut self.open {
            open.start -= used;
        }
    }
}

impl Open {
    /// Looks at the byte at `at`: where to go on, or where the value has ended.
    fn skip(&mut self, text: &[u8], at: usize) -> Result<usize, usize> {
        let byte = text[at];
        if self.in_text {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => {
                    self.in_text = false;
                    return if self.nesting == 0 { Err(at + 1) } else { Ok(at + 1) };
                }
                _ => {}
            }
            return Ok(at + 1);
        }
        match byte {
            b'"' => self.in_text = true,
            b'{' | b'[' => self.nesting += 1,
            // The end of what a bare number or word stands in.
            b'}' | b']' | b',' | b' ' | b'\n' | b'\r' | b'\t' if self.nesting == 0 => return Err(at),
            b'}' | b']' => {
                self.nesting -= 1;
                if self.nesting == 0 {
                    return Err(at + 1);
                }
            }
            _ => {}
        }
        Ok(at + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(text: &str, size: usize) -> Result<Vec<String>, Malformed> {
        let mut pieces = Pieces::default();
        let mut found = Vec::new();
        for part in text.as_bytes().chunks(size) {
            pieces.feed(part, |piece| {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                found.push(match piece {
                    Piece::Member(key, value) => format!("{}={}", text(key), text(value)),
                    Piece::Item(value) => format!("- {}", text(value)),
                    Piece::End => "end".to_owned(),
                });
                Ok::<_, Malformed>(())
            })?;
        }
        Ok(found)
    }

    const LIST: &str = concat!(
        r#"{"kind":"PodList", "metadata" : {"resourceVersion":"7","continue":"a\"}]"},"#,
        "\n",
        r#""items":[ {"a":[1,{"b":"]}\\"}]}, "x\\\"", 12,null ], "n":-1.5e3,"empty":{} }"#,
        "\n"
    );

    #[test]
    fn a_list_comes_in_pieces_however_it_arrives() {
        let expected = [
            r#"kind="PodList""#,
            r#"metadata={"resourceVersion":"7","continue":"a\"}]"}"#,
            r#"- {"a":[1,{"b":"]}\\"}]}"#,
            r#"- "x\\\"""#,
            "- 12",
            "- null",
            "n=-1.5e3",
            "empty={}",
            "end",
        ];
        for size in 1..LIST.len() {
            assert_eq!(cut(LIST, size).unwrap(), expected, "{size}");
        }
        assert_eq!(cut(&LIST.repeat(3), 11).unwrap(), expected.repeat(3));
    }

    #[test]
    fn a_cut_list_is_not_complete() {
        for end in 0..LIST.trim_end().len() {
            assert!(!cut(&LIST[..end], 7).unwrap().contains(&"end".to_owned()), "{end}");
        }
        let mut pieces = Pieces::default();
        for (part, whole) in [("{\"a\"", false), (":1", false), ("}\n", true), ("{", false), ("}{}", true)] {
            pieces.feed(part.as_bytes(), |_| Ok::<_, Malformed>(())).unwrap();
            assert_eq!(pieces.are_whole(), whole, "{part}");
        }
        assert_eq!(cut(r#"{"items":[]}"#, 1).unwrap(), ["end"]);
        assert_eq!(cut(r#"{"items":null}"#, 3).unwrap(), ["items=null", "end"]);
        assert_eq!(cut("{}", 1).unwrap(), ["end"]);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["[]", "no", "{1", "{\"a\" 1}", "{\"a\":}", "{\"items\":[,]}", "{} 1", "{\"a\":1 2}"] {
            assert_eq!(cut(text, 1), Err(Malformed), "{text}");
        }
    }

    #[test]
    fn a_value_has_a_bound() {
        let mut pieces = Pieces::default();
        let mut feed = |part: &[u8]| pieces.feed(part, |_| Ok::<_, Malformed>(()));
        assert_eq!(feed(b"{\"a\":\""), Ok(()));
        assert_eq!(feed(&vec![b'a'; VALUE_MAX - 16]), Ok(()));
        assert_eq!(feed(&[b'a'; 16]), Err(Malformed));
    }

    /// Only what the list holds stays in memory.
    #[test]
    fn text_is_given_up() {
        let mut pieces = Pieces::default();
        let nothing = |_: Piece<'_>| Ok::<_, Malformed>(());
        pieces.feed(br#"{"items":["#, nothing).unwrap();
        for _ in 0..1_000 {
            pieces.feed(br#"{"some":"item"},"#, nothing).unwrap();
            assert!(pieces.text.is_empty());
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in prop::collection::vec(prop::sample::select(br#"{}[]",:\ a1items"#.to_vec()), 0..64), size in 1_usize..9) {
            let mut pieces = Pieces::default();
            for part in bytes.chunks(size) {
                if pieces.feed(part, |_| Ok::<_, Malformed>(())).is_err() {
                    break;
                }
            }
        }
    }
}
