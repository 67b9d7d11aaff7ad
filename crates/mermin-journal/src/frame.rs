//! Entries of a file, one after the other: what they are, how long, and a checksum. One that was not written to its end, as who wrote
//! it was killed, ends the file for its readers, and is told from one that something else has changed.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// The first of each file: whose it is.
    Header = 1,
    /// A cut.
    Cut = 2,
    /// Records of an earlier file that were not settled when this one began.
    Carried = 3,
    /// Records of some cuts are settled.
    Settled = 4,
    /// What a source has read.
    Read = 5,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Header, Self::Cut, Self::Carried, Self::Settled, Self::Read];
}

/// Length (4 bytes), kind, a checksum of these (3), a checksum of the content (8).
const HEAD: usize = 16;

/// Of the first bytes of a head.
fn head_checksum(first: &[u8]) -> [u8; 3] {
    let [a, b, c, ..] = xxh3_64_with_seed(first, 0).to_le_bytes();
    [a, b, c]
}

/// Appends an entry.
pub(crate) fn push(out: &mut Vec<u8>, kind: Kind, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let begin = out.len();
    out.extend_from_slice(&u32::try_from(length).expect("an entry has less than 4 GiB").to_le_bytes());
    out.push(kind as u8);
    let checksum = head_checksum(&out[begin..]);
    out.extend_from_slice(&checksum);
    out.extend_from_slice(&[0; 8]);
    parts.iter().for_each(|part| out.extend_from_slice(part));
    let checksum = xxh3_64_with_seed(&out[begin + HEAD..], kind as u64);
    out[begin + 8..begin + HEAD].copy_from_slice(&checksum.to_le_bytes());
}

/// The entries of a file, to the first that was not written to its end: nothing is behind that. One that was, and is not as it
/// was written, is [`Damaged`]; nothing behind it is to be found either.
pub(crate) fn entries(mut bytes: &[u8]) -> impl Iterator<Item = Result<(Kind, &[u8]), Damaged>> {
    std::iter::from_fn(move || {
        let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
        // Once only.
        bytes = &[];
        let kind = Kind::ALL.into_iter().find(|kind| *kind as u8 == head[4]);
        let Some(kind) = kind.filter(|_| head[5..8] == head_checksum(&head[..5])) else {
            return Some(Err(Damaged));
        };
        let length = u32::from_le_bytes(*head.first_chunk()?);
        let content = rest.get(..usize::try_from(length).ok()?)?;
        if u64::from_le_bytes(*head[8..].first_chunk()?) != xxh3_64_with_seed(content, kind as u64) {
            return Some(Err(Damaged));
        }
        bytes = &rest[content.len()..];
        Some(Ok((kind, content)))
    })
    .fuse()
}

/// Something has changed a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damaged;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_or_changed_ends_the_file() {
        let mut file = Vec::new();
        push(&mut file, Kind::Header, &[b"whose"]);
        let first = file.len();
        push(&mut file, Kind::Read, &[b"one", b"", b"two"]);
        let all = |bytes: &[u8]| {
            entries(bytes)
                .map(|entry| entry.map(|(kind, content)| (kind, content.to_vec())))
                .collect::<Vec<_>>()
        };
        let whose = Ok((Kind::Header, b"whose".to_vec()));
        assert_eq!(all(&file), [whose.clone(), Ok((Kind::Read, b"onetwo".to_vec()))]);
        for length in first..file.len() {
            assert_eq!(all(&file[..length]), std::slice::from_ref(&whose), "{length}");
        }
        for at in first..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 0x10;
            assert_eq!(all(&changed), [whose.clone(), Err(Damaged)], "{at}");
        }
    }
}
