//! A shard's events and snapshots on their way to the signalling thread.

use std::collections::VecDeque;

use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use crate::engine::command::Event;
use crate::id::ShardId;
use crate::mailbox::{Report, Snapshot};

/// Events kept while the signalling thread's queue is full. Beyond this the newest is dropped
/// and counted; commands are refused long before, so only media can make so many.
const WAITING_EVENTS: usize = 65_536;

/// Sends reports in order and keeps those that find no room.
pub(super) struct Reports {
    queue: Sender<Report>,
    waiting: VecDeque<Event>,
    counts: Counts,
}

/// What happened to reports.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    /// Events given out.
    pub(super) events: u64,
    /// Events dropped because too many were waiting.
    pub(super) dropped: u64,
    /// Times the signalling thread's queue was found full.
    pub(super) full: u64,
}

impl Reports {
    pub(super) fn new(queue: Sender<Report>) -> Self {
        Self {
            queue,
            waiting: VecDeque::new(),
            counts: Counts::default(),
        }
    }

    /// Sends an event, behind those that wait.
    pub(super) fn push(&mut self, event: Event) {
        if !self.waiting.is_empty() {
            self.keep(event);
            return;
        }
        match self.queue.try_send(Report::Event(event)) {
            Ok(()) => self.counts.events += 1,
            Err(TrySendError::Full(Report::Event(event))) => {
                self.counts.full += 1;
                self.keep(event);
            }
            // Nobody listens any more: the process is ending.
            Err(_) => self.counts.dropped += 1,
        }
    }

    /// Tries again to send what waits. Returns whether all of it is gone.
    pub(super) fn retry(&mut self) -> bool {
        while let Some(event) = self.waiting.pop_front() {
            match self.queue.try_send(Report::Event(event)) {
                Ok(()) => self.counts.events += 1,
                Err(TrySendError::Full(Report::Event(event))) => {
                    self.waiting.push_front(event);
                    return false;
                }
                Err(_) => self.counts.dropped += 1,
            }
        }
        true
    }

    /// Whether events wait for room: until then no further commands should be taken.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Sends a snapshot unless the queue is full; the next one replaces it anyway.
    pub(super) fn push_snapshot(&mut self, shard: ShardId, snapshot: Snapshot) {
        let report = Report::Snapshot(shard, Box::new(snapshot));
        if let Err(TrySendError::Full(_)) = self.queue.try_send(report) {
            self.counts.full += 1;
        }
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    fn keep(&mut self, event: Event) {
        if self.waiting.len() == WAITING_EVENTS {
            self.counts.dropped += 1;
        } else {
            self.waiting.push_back(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PeerId;

    fn event(number: u64) -> Event {
        Event::Connected {
            peer: PeerId::new(number),
        }
    }

    #[test]
    fn events_that_find_no_room_are_sent_later_in_order() {
        let (queue, mut reports_in) = tokio::sync::mpsc::channel(2);
        let mut reports = Reports::new(queue);
        (0..5).for_each(|number| reports.push(event(number)));
        assert!(reports.is_waiting());
        let mut seen = Vec::new();
        while let Ok(Report::Event(event)) = reports_in.try_recv() {
            seen.push(event);
            reports.retry();
        }
        assert!(!reports.is_waiting());
        assert_eq!(seen, (0..5).map(event).collect::<Vec<_>>());
        assert_eq!((reports.counts().events, reports.counts().dropped), (5, 0));
    }

    #[test]
    fn beyond_the_bound_the_newest_event_is_dropped_and_counted() {
        let (queue, _reports) = tokio::sync::mpsc::channel(1);
        let mut reports = Reports::new(queue);
        (0..WAITING_EVENTS as u64 + 3).for_each(|number| reports.push(event(number)));
        assert_eq!(reports.counts().dropped, 2);
    }
}
