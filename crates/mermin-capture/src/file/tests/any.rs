//! Any bytes, and captures with a few of theirs changed, come to an end with a book that balances.

use super::Order::Big;
use super::made::{enhanced, frame, gzip, interface, obsolete, plain, section, simple};
use super::read;
use proptest::prelude::*;

proptest! {
    #[test]
    fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        read(bytes);
    }

    #[test]
    fn changed_captures_end(
        which in 0usize..4,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let pcapng = [
            section(Big),
            interface(Big, 1, 0, &[(9, vec![9]), (2, b"eth0".to_vec())]),
            enhanced(Big, 0, 5_000_000_007, &frame(1, 1), 43),
            simple(Big, &frame(2, 2), 44),
            obsolete(Big, 0, 6, &frame(3, 3)),
        ].concat();
        let mut bytes = match which {
            0 => plain(4),
            1 => pcapng,
            2 => gzip(&pcapng),
            _ => zstd::encode_all(pcapng.as_slice(), 1).unwrap(),
        };
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(bytes.len() - cut.index(bytes.len()));
        read(bytes);
    }

    #[test]
    fn any_cut_of_a_classic_delivers_the_whole_records_before_it(cut in 0usize..(24 + 5 * 68)) {
        let (kept, _, damages) = read(plain(5)[..cut].to_vec());
        prop_assert_eq!(kept.0.len(), cut.saturating_sub(24) / 68);
        prop_assert_eq!(damages.is_empty(), cut >= 24 && (cut - 24).is_multiple_of(68));
    }
}
