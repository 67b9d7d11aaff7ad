//! Texts from outside (names, interface names): bounded, and without anything that could act on a terminal or break a
//! line.
//!
//! Escaped are control characters (C0, DEL, C1), line and paragraph separators, and the characters that turn the
//! direction of writing, which could make a name read as another.

/// Bytes of a foreign text that are kept; the cut is at a character's border.
pub(crate) const FOREIGN_MAX: usize = 255;

/// Whose escapes to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `\u001b`, `\"`, `\\`, as within a JSON string.
    Json,
    /// `\u{1b}`, for people.
    Plain,
}

pub(crate) fn push_foreign(out: &mut Vec<u8>, text: &str, dialect: Dialect) {
    for c in text[..text.floor_char_boundary(FOREIGN_MAX)].chars() {
        match c {
            '"' | '\\' if dialect == Dialect::Json => out.extend_from_slice(&[b'\\', c as u8]),
            _ if acts(c) => push_escape(out, c, dialect),
            _ => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// All characters that are escaped lie in the basic multilingual plane: four digits do.
fn push_escape(out: &mut Vec<u8>, c: char, dialect: Dialect) {
    let code = u32::from(c);
    let digits = [12, 8, 4, 0].map(|shift| b"0123456789abcdef"[(code >> shift & 0xf) as usize]);
    match dialect {
        Dialect::Json => {
            out.extend_from_slice(b"\\u");
            out.extend_from_slice(&digits);
        }
        Dialect::Plain => {
            let zeros = digits.iter().take(3).take_while(|&&digit| digit == b'0').count();
            out.extend_from_slice(b"\\u{");
            out.extend_from_slice(&digits[zeros..]);
            out.push(b'}');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn escaped(text: &str, dialect: Dialect) -> String {
        let mut out = Vec::new();
        push_foreign(&mut out, text, dialect);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_acts_is_escaped() {
        for (text, json, plain) in [
            ("büro 1 – Süd", "büro 1 – Süd", "büro 1 – Süd"),
            ("a\"b\\c", "a\\\"b\\\\c", "a\"b\\c"),
            ("\u{1b}[31mred\n", "\\u001b[31mred\\u000a", "\\u{1b}[31mred\\u{a}"),
            ("\0\u{7f}\u{9b}", "\\u0000\\u007f\\u009b", "\\u{0}\\u{7f}\\u{9b}"),
            ("a\u{202e}b\u{2066}\u{2028}", "a\\u202eb\\u2066\\u2028", "a\\u{202e}b\\u{2066}\\u{2028}"),
        ] {
            assert_eq!(escaped(text, Dialect::Json), json);
            assert_eq!(escaped(text, Dialect::Plain), plain);
        }
    }

    #[test]
    fn the_length_is_bounded_at_a_characters_border() {
        let long = "ü".repeat(500);
        assert_eq!(escaped(&long, Dialect::Json), "ü".repeat(127));
        assert_eq!(escaped(&"x".repeat(255), Dialect::Plain).len(), 255);
    }

    proptest! {
        #[test]
        fn json_reads_back(text in "\\PC*|[\\x00-\\u{ff}\\u{2000}-\\u{2100}\"\\\\]{0,60}") {
            let kept = &text[..text.floor_char_boundary(FOREIGN_MAX)];
            let read: String = serde_json::from_str(&format!("\"{}\"", escaped(&text, Dialect::Json))).unwrap();
            prop_assert_eq!(read, kept);
        }

        #[test]
        fn nothing_acts_any_more(text in "[\\x00-\\u{ff}\\u{2000}-\\u{2100}]{0,60}") {
            prop_assert!(!escaped(&text, Dialect::Plain).chars().any(acts));
        }
    }
}
