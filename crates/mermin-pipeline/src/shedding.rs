//! When to shed work and when to take it back: a ladder that is climbed while there is too much load, and come down from
//! while there is little.
//!
//! Looked at in even intervals. Load is what is taken as a part of what may be taken. Up: it was above [`OVER`] for some
//! looks in a row. Down: it was below [`UNDER`] for longer. The step down itself brings load back, which a step up would
//! take off again, so one that turns out to have come too early makes the next one wait twice as long: however a load
//! answers to the steps, changes become rarer and rarer. Patience comes back when a step down has held.

/// Above this part of the budget there is too much load. A control group lets nobody take more than all of it.
pub(crate) const OVER: f64 = 0.95;
/// Below this part there is room for more.
pub(crate) const UNDER: f64 = 0.8;
/// Looks below it before a step down.
const LOOKS_DOWN: u32 = 5;
/// The longest that a step down may come to wait, in looks.
const LOOKS_DOWN_MAX: u32 = 320;

/// See the module's text.
#[derive(Clone, Debug)]
pub(crate) struct Ladder {
    /// The lowest step that it may come down to.
    least: usize,
    most: usize,
    step: usize,
    looks_up: u32,
    over: u32,
    under: u32,
    /// Looks below [`UNDER`] that the next step down takes.
    patience: u32,
    /// Looks since the last step down; while it has not held yet.
    since_down: Option<u32>,
}

impl Ladder {
    /// From step `least` to `most`; up after `looks_up` looks.
    pub(crate) const fn new(least: usize, most: usize, looks_up: u32) -> Self {
        Self { least, most, step: least, looks_up, over: 0, under: 0, patience: LOOKS_DOWN, since_down: None }
    }

    pub(crate) const fn step(&self) -> usize {
        self.step
    }

    /// Another look; the step from now on.
    pub(crate) fn look(&mut self, load: f64) -> usize {
        self.over = if load > OVER { self.over + 1 } else { 0 };
        self.under = if load < UNDER { self.under + 1 } else { 0 };
        if let Some(since) = &mut self.since_down {
            *since += 1;
            if *since > self.patience {
                (self.since_down, self.patience) = (None, LOOKS_DOWN);
            }
        }
        if self.over >= self.looks_up && self.step < self.most {
            if self.since_down.take().is_some() {
                self.patience = (self.patience * 2).min(LOOKS_DOWN_MAX);
            }
            (self.step, self.over) = (self.step + 1, 0);
        } else if self.under >= self.patience && self.step > self.least {
            (self.step, self.under, self.since_down) = (self.step - 1, 0, Some(0));
        }
        self.step
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The steps after each of these loads.
    fn steps(ladder: &mut Ladder, loads: impl IntoIterator<Item = f64>) -> Vec<usize> {
        loads.into_iter().map(|load| ladder.look(load)).collect()
    }

    #[test]
    fn load_takes_steps_soon_and_quiet_takes_them_back_later() {
        let mut ladder = Ladder::new(0, 3, 2);
        assert_eq!(steps(&mut ladder, [2.0; 8]), [0, 1, 1, 2, 2, 3, 3, 3]);
        assert_eq!(steps(&mut ladder, [0.9; 50]), [3; 50], "between the two lines nothing changes");
        assert_eq!(steps(&mut ladder, [0.1; 16]), [3, 3, 3, 3, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 0, 0]);
    }

    #[test]
    fn a_short_burst_or_lull_is_none() {
        let mut ladder = Ladder::new(0, 3, 2);
        assert_eq!(steps(&mut ladder, [2.0, 0.9, 2.0, 0.1, 2.0, 0.9]), [0; 6]);
        assert_eq!(
            steps(&mut ladder, [2.0, 2.0, 0.1, 0.1, 0.1, 0.1, 0.8, 0.1, 0.1]),
            [0, 1, 1, 1, 1, 1, 1, 1, 1]
        );
    }

    #[test]
    fn it_comes_down_to_its_least_step_only() {
        let mut ladder = Ladder::new(1, 3, 1);
        assert_eq!(steps(&mut ladder, [2.0, 2.0, 2.0]), [2, 3, 3]);
        assert_eq!(steps(&mut ladder, [0.0; 20]).last(), Some(&1));
    }

    /// A load that halves with each step: at one it is too much, at the next there is room for more.
    #[test]
    fn what_comes_back_is_tried_more_and_more_rarely_and_soon_again_once_it_held() {
        let mut ladder = Ladder::new(0, 6, 2);
        let mut changes = Vec::new();
        let mut at = 0;
        for look in 0..2_000 {
            let now = ladder.look(1.5 / f64::from(1 << at));
            if now < at {
                changes.push(look);
            }
            at = now;
        }
        let gaps: Vec<_> = changes.windows(2).map(|two| two[1] - two[0]).collect();
        assert_eq!(gaps[..7], [12, 22, 42, 82, 162, 322, 322], "{changes:?}");
        assert_eq!(steps(&mut ladder, [0.1; 400]).last(), Some(&0));
        assert_eq!(steps(&mut ladder, [0.1; 400]).last(), Some(&0));
        assert_eq!(steps(&mut ladder, [2.0, 2.0]), [0, 1]);
        assert_eq!(steps(&mut ladder, [0.1; 5]), [1, 1, 1, 1, 0], "patience is what it was");
    }

    /// The same by going through all loads so far, look by look, with nothing kept but the changes.
    fn by_history(loads: &[f64], (least, most, looks_up): (usize, usize, u32)) -> Vec<usize> {
        // Look after which a change took effect, and whether it was one down.
        let mut changes: Vec<(usize, bool)> = Vec::new();
        let (mut step, mut all) = (least, Vec::new());
        for now in 0..loads.len() {
            let last =
                |down: bool| changes.iter().rev().find(|change| change.1 == down).map(|change| change.0);
            let in_row = |from: Option<usize>, is: fn(f64) -> bool| {
                let from = from.map_or(0, |look| look + 1);
                loads[from..=now].iter().rev().take_while(|load| is(**load)).count()
            };
            let (over, under) =
                (in_row(last(false), |load| load > OVER), in_row(last(true), |load| load < UNDER));
            let patience = patience(&changes, now);
            if over >= looks_up as usize && step < most {
                step += 1;
                changes.push((now, false));
            } else if under >= patience && step > least {
                step -= 1;
                changes.push((now, true));
            }
            all.push(step);
        }
        all
    }

    /// Looks that a step down takes at look `now`, after these changes.
    fn patience(changes: &[(usize, bool)], now: usize) -> usize {
        let mut patience = LOOKS_DOWN as usize;
        let mut down: Option<usize> = None;
        for &(look, is_down) in changes {
            if down.is_some_and(|at| look - at > patience) {
                (patience, down) = (LOOKS_DOWN as usize, None);
            }
            match (is_down, down) {
                (true, _) => down = Some(look),
                (false, Some(_)) => {
                    patience = (patience * 2).min(LOOKS_DOWN_MAX as usize);
                    down = None;
                }
                (false, None) => {}
            }
        }
        if down.is_some_and(|at| now - at > patience) { LOOKS_DOWN as usize } else { patience }
    }

    fn loads() -> impl Strategy<Value = Vec<f64>> {
        let stretch = (prop::sample::select(vec![0.1, 0.79, 0.8, 0.9, 0.95, 0.96, 3.0]), 1_usize..30);
        prop::collection::vec(stretch, 1..40)
            .prop_map(|stretches| stretches.into_iter().flat_map(|(load, n)| vec![load; n]).collect())
    }

    proptest! {
        #[test]
        fn it_does_as_its_history_says(loads in loads(), least in 0_usize..2, more in 0_usize..8, looks_up in 1_u32..4) {
            let (bounds, mut ladder) = ((least, least + more, looks_up), Ladder::new(least, least + more, looks_up));
            prop_assert_eq!(steps(&mut ladder, loads.iter().copied()), by_history(&loads, bounds));
        }

        /// One step at a time, within its bounds, and never up and down within a few looks.
        #[test]
        fn it_never_swings(loads in loads(), more in 0_usize..8) {
            let mut ladder = Ladder::new(1, 1 + more, 2);
            let seen: Vec<_> = std::iter::once(1).chain(steps(&mut ladder, loads)).collect();
            prop_assert!(seen.iter().all(|step| (1..=1 + more).contains(step)));
            prop_assert!(seen.windows(2).all(|two| two[0].abs_diff(two[1]) <= 1));
            let ups: Vec<_> = (1..seen.len()).filter(|at| seen[*at] > seen[*at - 1]).collect();
            let downs: Vec<_> = (1..seen.len()).filter(|at| seen[*at] < seen[*at - 1]).collect();
            for down in &downs {
                prop_assert!(ups.iter().all(|up| up > down || down - up >= LOOKS_DOWN as usize), "{:?}", seen);
                prop_assert!(ups.iter().all(|up| up < down || up - down >= 2), "{:?}", seen);
            }
        }

        /// However a load answers to the steps, changes are few.
        #[test]
        fn whatever_a_step_brings_changes_become_rare(
            load in 0.0_f64..200.0, each in 0.3_f64..1.0, most in 1_usize..9,
        ) {
            let mut ladder = Ladder::new(0, most, 2);
            let mut changes = 0;
            for _ in 0..3_000 {
                let before = ladder.step();
                let now = ladder.look(load * each.powi(before as i32));
                changes += u32::from(now != before);
            }
            prop_assert!(changes < 60, "{} changes", changes);
        }
    }
}
