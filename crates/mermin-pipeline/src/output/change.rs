//! Outputs that come and go while the pipeline runs: the set of them is put in another's place, and those that were removed
//! are looked after until they have ended.

use super::fan_out::FanOut;
use super::leaving::{Gate, Leaving, Past, Progress};
use super::{NewOutput, Output, Predecessor, Treatment};
use crate::lock::lock;
use crate::threads::{LAST_WORDS, StartError};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

/// Outputs can't be changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// Records are on their way to the outputs that there are, for the last time.
    #[error("the run is ending")]
    Ending,
    /// Nothing is to be removed.
    #[error("there is no output {name}")]
    Unknown {
        /// What was named.
        name: String,
    },
    /// Names tell outputs from each other.
    #[error("two outputs are {name}")]
    Twice {
        /// Their name.
        name: String,
    },
    /// The system gave no thread.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// What has changed and may change.
pub(super) struct Changes {
    /// How outputs are treated, those to come as well.
    pub(super) treatment: Treatment,
    pub(super) leaving: Vec<Leaving>,
    pub(super) past: Past,
    /// Threads that have handed over all they will.
    pub(super) ended: usize,
    /// The end has begun.
    pub(super) over: bool,
}

impl Changes {
    pub(super) fn none_yet(treatment: Treatment) -> Self {
        Self { treatment, leaving: Vec::new(), past: Past::default(), ended: 0, over: false }
    }
}

impl FanOut {
    /// The outputs to begin with.
    pub(crate) fn start(&self, outputs: Vec<NewOutput>) -> Result<(), StartError> {
        let begun = self.begin_all(outputs, &mut |_| None, &lock(&self.changes))?;
        self.set_outputs(begun);
        Ok(())
    }

    /// From now on the outputs with these names get nothing more, and others do. What the former have they deliver within
    /// `patience`; what they haven't then stays on disk, or is dropped (`shutdown_timeout`) where it isn't there. All of it, or
    /// nothing.
    pub(crate) fn change(
        &self,
        leave: &[String],
        come: Vec<NewOutput>,
        patience: Duration,
    ) -> Result<(), ChangeError> {
        let mut changes = lock(&self.changes);
        if changes.over || changes.ended > 0 {
            return Err(ChangeError::Ending);
        }
        let present = self.outputs();
        if let Some(name) = leave.iter().find(|name| present.iter().all(|output| output.name != **name)) {
            return Err(ChangeError::Unknown { name: name.clone() });
        }
        let leaves = |output: &&Arc<Output>| leave.contains(&output.name);
        let mut set: Vec<_> = present.iter().filter(|output| !leaves(output)).map(Arc::clone).collect();
        let mut names: Vec<_> = set.iter().map(|output| output.name.clone()).collect();
        for new in &come {
            let name = new.exporter.name().to_owned();
            if names.contains(&name) {
                return Err(ChangeError::Twice { name });
            }
            names.push(name);
        }
        let mut gates = HashMap::<String, Vec<Gate>>::new();
        let begun = self.begin_all(
            come,
            &mut |ahead| {
                let is_going = || changes.leaving.iter().any(|leaving| leaving.output.name == *ahead);
                let (gate, opens) = sync_channel(0);
                (leave.contains(ahead) || is_going()).then(|| {
                    gates.entry(ahead.clone()).or_default().push(gate);
                    opens
                })
            },
            &changes,
        )?;
        begun.iter().for_each(|output| changes.past.hand_on(output));
        set.extend(begun);
        self.set_outputs(set);
        for leaving in &mut changes.leaving {
            let behind = gates.get(&leaving.output.name);
            leaving.gates.extend(behind.into_iter().flatten().cloned());
        }
        let until = Instant::now() + patience;
        let leaving = present.iter().filter(leaves);
        let leaving = leaving.map(|output| {
            let gates = gates.remove(&output.name).unwrap_or_default();
            Leaving::new(Arc::clone(output), gates, until)
        });
        changes.leaving.extend(leaving);
        Ok(())
    }

    /// Has outputs begin, or none of them. `wait_for` gives what one waits for that comes behind another.
    fn begin_all(
        &self,
        come: Vec<NewOutput>,
        wait_for: &mut dyn FnMut(&String) -> Option<Receiver<Infallible>>,
        changes: &Changes,
    ) -> Result<Vec<Arc<Output>>, StartError> {
        let mut begun = Vec::<Arc<Output>>::new();
        for NewOutput { exporter, after, buffer } in come {
            let mut ahead = after.iter().filter_map(&mut *wait_for).collect();
            let before = self.predecessor(exporter.name(), changes);
            let (mut output, works) = Output::new(exporter, buffer, &changes.treatment, before);
            for (name, work) in works {
                let ahead: Vec<Receiver<Infallible>> = std::mem::take(&mut ahead);
                let work = move || {
                    // Nothing ever comes but that nobody holds the other end any more.
                    for one in ahead {
                        let _ = one.recv();
                    }
                    work();
                };
                match self.threads.keep_with_alarm("output", name, Arc::clone(&output.matters), work) {
                    Ok(thread) => output.threads.push(thread),
                    Err(error) => {
                        // Nobody knows those that have begun.
                        output.queue.end();
                        begun.iter().for_each(|output| output.queue.end());
                        return Err(error);
                    }
                }
            }
            begun.push(Arc::new(output));
        }
        Ok(begun)
    }

    /// What the output that had this name last has counted.
    fn predecessor(&self, name: &str, changes: &Changes) -> Option<Predecessor> {
        let (present, leaving) =
            (self.outputs(), changes.leaving.iter().rev().map(|leaving| &leaving.output));
        let last = present.iter().chain(leaving).find(|output| output.name == *name);
        last.map(|output| output.predecessor()).or_else(|| changes.past.predecessor(name))
    }

    /// From now on all outputs are treated as `change` leaves it.
    pub(crate) fn treat(&self, change: impl FnOnce(&mut Treatment)) {
        let mut changes = lock(&self.changes);
        change(&mut changes.treatment);
        self.outputs().iter().for_each(|output| output.treat(&changes.treatment));
    }

    /// Looks for outputs that don't answer, and after those that leave; to be called several times a second.
    pub(crate) fn look(&self) {
        let now = Instant::now();
        self.outputs().iter().for_each(|output| output.look(now));
        let changes = &mut *lock(&self.changes);
        let mut at = 0;
        while let Some(leaving) = changes.leaving.get_mut(at) {
            match leaving.look(now, &self.threads) {
                Progress::UnderWay => at += 1,
                progress => {
                    let gone = changes.leaving.remove(at);
                    let (present, leaving) = (self.outputs(), &changes.leaving);
                    let others = present.iter().chain(leaving.iter().map(|leaving| &leaving.output));
                    let names = others.map(|output| output.name.clone()).collect();
                    changes.past.take_in(gone, &progress, &names);
                }
            }
        }
    }

    /// Outputs that were removed and have not ended by then are given up.
    pub(crate) fn hurry(&self, by: Instant) {
        lock(&self.changes).leaving.iter_mut().for_each(|leaving| leaving.hurry(by));
    }

    /// All else is over. What outputs that were removed still have they may deliver for a moment; then they are given up, and
    /// let go a moment later.
    pub(crate) fn part_with_leaving(&self) {
        self.hurry(Instant::now() + LAST_WORDS);
        loop {
            self.look();
            if lock(&self.changes).leaving.is_empty() {
                break;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Threads of outputs that were removed and have not ended yet.
    pub(crate) fn leaving_threads(&self) -> Vec<ThreadId> {
        let changes = lock(&self.changes);
        changes.leaving.iter().flat_map(|leaving| leaving.output.threads.iter().copied()).collect()
    }

    /// Names of outputs that were removed and have not ended yet.
    pub(crate) fn leaving(&self) -> Vec<String> {
        lock(&self.changes).leaving.iter().map(|leaving| leaving.output.name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::book::amount;
    use super::*;
    use crate::testing::record;
    use mermin_flow::{Amount, Exporter, Failure, FlowEvent, FlowRecord, Receipt};

    const LONG: Duration = Duration::from_secs(3_600);

    /// Delivers what it gets.
    struct Takes;

    impl Exporter for Takes {
        fn name(&self) -> &str {
            "a"
        }

        fn export(&mut self, records: &[FlowRecord], receipt: &mut Receipt) -> Result<(), Failure> {
            receipt.delivered += amount(records);
            Ok(())
        }

        fn flush(&mut self, _: &mut Receipt) -> Result<(), Failure> {
            Ok(())
        }
    }

    fn with_an_output() -> FanOut {
        let fan_out = FanOut::new(1, Treatment::with_room_for(100), Arc::default());
        let new = NewOutput { exporter: Box::new(Takes), after: Vec::new(), buffer: None };
        fan_out.start(vec![new]).unwrap();
        fan_out
    }

    #[test]
    fn one_that_is_removed_ends_behind_what_is_on_its_way_to_it() {
        let fan_out = with_an_output();
        // A worker has taken the set, and is about to hand over.
        let on_its_way = fan_out.outputs();
        fan_out.change(&["a".to_owned()], Vec::new(), LONG).unwrap();
        assert!(fan_out.outputs().is_empty());
        for _ in 0..20 {
            fan_out.look();
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(fan_out.leaving(), ["a"]);
        let batch = Arc::new(vec![record(1, FlowEvent::End)]);
        on_its_way[0].hand(&batch, amount(&batch), false);
        drop(on_its_way);
        let began = Instant::now();
        while !fan_out.leaving().is_empty() {
            assert!(began.elapsed() < Duration::from_secs(30), "it does not end");
            fan_out.look();
            thread::sleep(Duration::from_millis(1));
        }
        let [(_, book)] = &fan_out.books()[..] else { panic!("its book stays") };
        assert_eq!((book.delivered.records, book.queued), (1, Amount::default()));
    }

    #[test]
    fn nothing_comes_or_goes_once_the_end_has_begun() {
        for begin in [FanOut::wait_from_now, FanOut::end] {
            let fan_out = with_an_output();
            begin(&fan_out);
            let change = fan_out.change(&["a".to_owned()], Vec::new(), LONG);
            assert!(matches!(change, Err(ChangeError::Ending)));
            assert_eq!(fan_out.outputs().len(), 1);
            fan_out.end();
        }
    }
}
