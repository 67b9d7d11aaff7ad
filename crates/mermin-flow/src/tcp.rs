//! What a passive observer can say of a TCP connection's state (RFC 9293 section 3.3.2) from flags alone.
//!
//! Up to the close the state is the connection's; from the first FIN on it is that of the end which closed first.
//! Sequence numbers are not looked at, so an acknowledgement after a FIN counts as that of the FIN.

use crate::record::TcpState;

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;

/// The state after `flags` from one side; `own` and `other` are the flags seen before from that side and the other.
#[inline(always)]
pub(crate) fn next(state: TcpState, own: u8, other: u8, flags: u8) -> TcpState {
    // Nearly every packet: data or an acknowledgement in the middle of a connection.
    if flags & (SYN | FIN | RST) == 0 && state == TcpState::Established {
        return state;
    }
    step(state, own, other, flags)
}

fn step(state: TcpState, own: u8, other: u8, flags: u8) -> TcpState {
    if flags & RST != 0 || state == TcpState::Closed {
        return TcpState::Closed;
    }
    if flags & FIN != 0 {
        return match state {
            _ if other & FIN == 0 => match state {
                TcpState::FinWait2 => TcpState::FinWait2,
                _ => TcpState::FinWait1,
            },
            _ if own & FIN != 0 => state,
            TcpState::FinWait1 if flags & ACK == 0 => TcpState::Closing,
            _ => TcpState::TimeWait,
        };
    }
    let acknowledges = flags & ACK != 0;
    match state {
        TcpState::Unknown | TcpState::SynSent if flags & SYN != 0 => {
            // A SYN from the end that had one already answered: simultaneous open.
            if acknowledges || other & SYN != 0 { TcpState::SynReceived } else { TcpState::SynSent }
        }
        TcpState::Unknown | TcpState::SynSent | TcpState::SynReceived if acknowledges && flags & SYN == 0 => {
            TcpState::Established
        }
        TcpState::FinWait1 if acknowledges && own & FIN == 0 => TcpState::FinWait2,
        TcpState::Closing if acknowledges => TcpState::TimeWait,
        _ => state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TcpState::{
        Closed, Closing, Established, FinWait1, FinWait2, SynReceived, SynSent, TimeWait, Unknown,
    };

    /// Plays packets of (side, flags) and gives the state after each.
    fn play(packets: &[(usize, u8)]) -> Vec<TcpState> {
        let (mut state, mut seen) = (Unknown, [0; 2]);
        let mut states = Vec::new();
        for &(side, flags) in packets {
            state = next(state, seen[side], seen[1 - side], flags);
            seen[side] |= flags;
            states.push(state);
        }
        states
    }

    #[test]
    fn a_whole_connection() {
        let packets = [
            (0, SYN),
            (1, SYN | ACK),
            (0, ACK),
            (0, ACK | 8),
            (0, FIN | ACK),
            (1, ACK),
            (1, FIN | ACK),
            (0, ACK),
        ];
        let states = [SynSent, SynReceived, Established, Established, FinWait1, FinWait2, TimeWait, TimeWait];
        assert_eq!(play(&packets), states);
    }

    #[test]
    fn closes_and_resets() {
        assert_eq!(
            play(&[(0, ACK), (1, FIN), (0, FIN), (1, ACK)]),
            [Established, FinWait1, Closing, TimeWait]
        );
        assert_eq!(play(&[(0, ACK), (1, FIN | ACK), (1, FIN | ACK)]), [Established, FinWait1, FinWait1]);
        assert_eq!(play(&[(0, ACK), (1, FIN | ACK), (1, ACK)]), [Established, FinWait1, FinWait1]);
        assert_eq!(
            play(&[(0, ACK), (0, FIN | ACK), (1, ACK), (0, FIN | ACK)]),
            [Established, FinWait1, FinWait2, FinWait2]
        );
        assert_eq!(play(&[(0, SYN), (1, RST | ACK), (0, ACK)]), [SynSent, Closed, Closed]);
        assert_eq!(play(&[(0, ACK), (0, SYN | FIN | RST)]), [Established, Closed]);
        // The second FIN acknowledges the first.
        assert_eq!(
            play(&[(0, ACK), (1, FIN | ACK), (0, FIN | ACK), (0, FIN | ACK)]),
            [Established, FinWait1, TimeWait, TimeWait]
        );
        // A FIN again, and a segment that acknowledges nothing.
        assert_eq!(
            play(&[(0, ACK), (1, FIN), (0, FIN), (0, FIN | ACK), (1, 0), (1, ACK)]),
            [Established, FinWait1, Closing, Closing, Closing, TimeWait]
        );
        assert_eq!(play(&[(0, FIN), (1, 0), (1, ACK)]), [FinWait1, FinWait1, FinWait2]);
    }

    #[test]
    fn beginnings() {
        assert_eq!(play(&[(1, SYN | ACK), (0, ACK)]), [SynReceived, Established]);
        assert_eq!(play(&[(0, SYN), (1, SYN)]), [SynSent, SynReceived]);
        assert_eq!(play(&[(0, SYN), (0, SYN), (0, ACK)]), [SynSent, SynSent, Established]);
        assert_eq!(play(&[(0, 0)]), [Unknown]);
        assert_eq!(play(&[(0, SYN), (0, 8), (1, ACK)]), [SynSent, SynSent, Established]);
        assert_eq!(
            play(&[(1, SYN | ACK), (1, SYN | ACK), (1, SYN), (1, 0), (0, ACK)]),
            [SynReceived, SynReceived, SynReceived, SynReceived, Established]
        );
        assert_eq!(play(&[(0, ACK), (0, SYN), (0, SYN | ACK)]), [Established; 3]);
    }
}
