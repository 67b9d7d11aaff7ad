//! Community ID version 1: a hash of the conversation that any tool computes alike
//! (<https://github.com/corelight/community-id-spec>).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt;

/// The SHA-1 digest; prints as `1:` and its Base64 form.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CommunityId(pub [u8; 20]);

impl CommunityId {
    /// Length of the text form.
    pub const TEXT_LEN: usize = 30;

    /// The text form, without allocation.
    #[must_use]
    pub fn text(&self) -> [u8; Self::TEXT_LEN] {
        let mut text = *b"1:............................";
        let written = STANDARD.encode_slice(self.0, &mut text[2..]);
        debug_assert_eq!(written, Ok(28));
        text
    }
}

impl fmt::Display for CommunityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.text()).unwrap_or_default())
    }
}

impl fmt::Debug for CommunityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
