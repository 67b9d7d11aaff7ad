//! The token that who asks has to show.

use super::changing::Changing;
use crate::config::lower;
use sha2::{Digest, Sha256};
use std::hint::black_box;
use std::path::Path;

/// The token's digest: comparing digests takes the same time wherever two tokens differ, and however long they are.
pub(super) struct Token(Changing<[u8; 32]>);

impl Token {
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let file = path.to_owned();
        let make = move || match std::fs::read_to_string(&file) {
            Ok(text) if text.trim().is_empty() => Err(format!("{} holds no token", file.display())),
            Ok(text) => Ok(digest(text.trim())),
            Err(error) => Err(format!("can't read {}: {}", file.display(), lower(&error))),
        };
        Changing::new("token", vec![path.to_owned()], make).map(Self)
    }

    /// Whether an `Authorization` header shows it.
    pub(super) fn is_shown(&self, header: Option<&str>) -> bool {
        let shown = header.and_then(|header| header.split_once(' '));
        let Some((_, shown)) = shown.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) else {
            return false;
        };
        let (expected, shown) = (self.0.get(), digest(shown.trim()));
        let difference = expected.iter().zip(shown).fold(0, |sum, (a, b)| black_box(sum | (a ^ b)));
        difference == 0
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself_will_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "s3cret\n").unwrap();
        let token = Token::read(&path).unwrap();
        for (header, shown) in [
            (Some("Bearer s3cret"), true),
            (Some("bearer s3cret"), true),
            (Some("Bearer s3cre"), false),
            (Some("Bearer s3cret2"), false),
            (Some("Bearer "), false),
            (Some("Basic s3cret"), false),
            (Some("s3cret"), false),
            (None, false),
        ] {
            assert_eq!(token.is_shown(header), shown, "{header:?}");
        }
        std::fs::write(&path, " \n").unwrap();
        assert!(Token::read(&path).err().unwrap().ends_with("holds no token"));
        assert!(Token::read(Path::new("/nonexistent/t")).err().unwrap().contains("no such file"));
    }
}
