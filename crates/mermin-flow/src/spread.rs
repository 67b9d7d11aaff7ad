//! How far back what a flow's next record counts may reach, beyond one active interval.
//!
//! A flow's deadlines come before the packets behind them. So what no record has carried is of one active interval, of
//! those whose reports were left out, and of as many as an observation of several packets spans: that is counted when
//! its first packet's time has come, with all its packets.

/// What lies between, in active intervals: the reports left out, and the longest span. Of each, 15 is "so many or more".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spread(u8);

const MANY: u8 = 15;

impl Spread {
    /// One interval is all.
    pub(crate) const NONE: Self = Self(0);

    pub(crate) const fn byte(self) -> u8 {
        self.0
    }

    pub(crate) const fn of_byte(byte: u8) -> Self {
        Self(byte)
    }

    const fn parts(self) -> (u8, u8) {
        (self.0 & MANY, self.0 >> 4)
    }

    /// The report of so many intervals was left out.
    pub(crate) fn left_out(&mut self, intervals: u64) {
        let (left_out, span) = self.parts();
        self.0 = span << 4 | (u64::from(left_out).saturating_add(intervals)).min(MANY.into()) as u8;
    }

    /// An observation's packets lie `span` apart, where an interval is `active` long.
    #[inline]
    pub(crate) fn spans(&mut self, span: u64, active: u64) {
        if span > 0 {
            let (left_out, longest) = self.parts();
            self.0 = longest.max(span.div_ceil(active).min(MANY.into()) as u8) << 4 | left_out;
        }
    }

    /// Intervals were `from` long, and are `to`, which is less, from now on. The one under way may already hold packets that
    /// lie as far apart as it was to be long.
    pub(crate) fn shorten(&mut self, from: u64, to: u64) {
        let (left_out, span) = self.parts();
        let many = u64::from(MANY);
        let scaled = |n: u8| (u64::from(n).saturating_mul(from)).div_ceil(to.max(1));
        let left_out = if left_out < MANY { (scaled(left_out + 1) - 1).min(many) } else { many };
        let span = if span < MANY { scaled(span).min(many) } else { many };
        self.0 = (span as u8) << 4 | left_out as u8;
    }

    /// How many; `None`: nobody counted that far.
    pub(crate) fn intervals(self) -> Option<u64> {
        let (left_out, span) = self.parts();
        (left_out < MANY && span < MANY).then(|| u64::from(left_out) + u64::from(span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_left_out_add_up_and_the_longest_span_counts() {
        let mut spread = Spread::NONE;
        assert_eq!(spread.intervals(), Some(0));
        spread.spans(0, 60);
        assert_eq!(spread, Spread::NONE);
        for (span, intervals) in [(1, 1), (60, 1), (61, 2), (10, 2)] {
            spread.spans(span, 60);
            assert_eq!(spread.intervals(), Some(intervals), "{span}");
        }
        spread.left_out(3);
        spread.left_out(1);
        assert_eq!(spread.intervals(), Some(6));
        spread.spans(200, 60);
        assert_eq!(spread.intervals(), Some(8));
    }

    #[test]
    fn shorter_intervals_are_more() {
        let of = |left_out: u64, span: u64| {
            let mut spread = Spread::NONE;
            spread.left_out(left_out);
            spread.spans(span * 60, 60);
            spread
        };
        for ((left_out, span), to, intervals) in [
            ((0, 0), 30, Some(1)),
            ((0, 0), 59, Some(1)),
            ((0, 0), 7, Some(8)),
            ((1, 0), 30, Some(3)),
            ((0, 1), 30, Some(3)),
            ((2, 3), 50, Some(3 + 4)),
            ((0, 0), 4, Some(14)),
            ((0, 0), 3, None),
            ((20, 0), 59, None),
            ((0, 20), 59, None),
        ] {
            let mut spread = of(left_out, span);
            spread.shorten(60, to);
            assert_eq!(spread.intervals(), intervals, "{left_out} {span} {to}");
        }
    }

    #[test]
    fn so_many_that_nobody_counts_them() {
        let spread = |left_out, span| {
            let mut spread = Spread::NONE;
            spread.left_out(left_out);
            spread.spans(span, 1);
            spread.intervals()
        };
        assert_eq!((spread(14, 14), spread(15, 0), spread(0, 15)), (Some(28), None, None));
        assert_eq!((spread(u64::MAX, 0), spread(14, u64::MAX)), (None, None));
    }
}
