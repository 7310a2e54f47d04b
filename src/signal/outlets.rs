//! Where events go from here: to side jobs by bounded queues, and to whoever reads `/api/events`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::{broadcast, mpsc, watch};
use utoipa::ToSchema;

use crate::signal::Now;
use crate::signal::happening::{Happening, Notice};
use crate::signal::limits;
use crate::signal::numbers::PeerNumbers;

/// One side job's end of the queue to it.
#[derive(Debug, Clone)]
pub struct Outlet {
    /// What it does with events.
    pub kind: OutletKind,
    /// Where events for it wait. When full the newest is dropped and counted.
    pub queue: mpsc::Sender<Arc<Notice>>,
    /// What it has counted, by name.
    pub counted: watch::Receiver<BTreeMap<&'static str, u64>>,
}

/// What a side job does with events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OutletKind {
    /// Posts them to an address.
    Webhook,
    /// Writes them into a database.
    CallLog,
}

/// What is counted of one [`Outlet`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct OutletFigures {
    /// What it does with events.
    pub kind: OutletKind,
    /// Gauge: events waiting for it.
    pub waiting: u64,
    /// Events that were dropped because its queue was full.
    pub dropped: u64,
    /// What it counts itself.
    #[serde(flatten)]
    #[schema(value_type = BTreeMap<String, u64>)]
    pub counted: BTreeMap<&'static str, u64>,
}

/// All of them.
#[derive(Debug)]
pub struct Outlets {
    /// What the names of this run's events begin with.
    run: u64,
    /// Events told so far.
    told: u64,
    jobs: Vec<Job>,
    readers: broadcast::Sender<Arc<Notice>>,
}

#[derive(Debug)]
struct Job {
    outlet: Outlet,
    dropped: u64,
}

impl Outlets {
    /// Those of these side jobs, and nobody reading.
    #[must_use]
    pub fn new(outlets: Vec<Outlet>) -> Self {
        let job = |outlet| Job { outlet, dropped: 0 };
        Self {
            run: PeerNumbers::default().draw_number(),
            told: 0,
            jobs: outlets.into_iter().map(job).collect(),
            readers: broadcast::Sender::new(limits::READER_EVENTS),
        }
    }

    /// Tells everyone. Waits for nobody.
    pub fn tell(&mut self, now: Now, what: Happening) {
        self.told += 1;
        let notice = Arc::new(Notice {
            id: format!("e_{:016x}_{}", self.run, self.told),
            at: now.unix_ms,
            what,
        });
        for job in &mut self.jobs {
            if job.outlet.queue.try_send(notice.clone()).is_err() {
                job.dropped += 1;
            }
        }
        // Fails when nobody reads.
        let _ = self.readers.send(notice);
    }

    /// Everything told from here on. A reader that falls [`limits::READER_EVENTS`] behind loses
    /// the oldest.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Notice>> {
        self.readers.subscribe()
    }

    /// What has been counted of each side job.
    #[must_use]
    pub fn figures(&self) -> Vec<OutletFigures> {
        let figures = |job: &Job| {
            let queue = &job.outlet.queue;
            OutletFigures {
                kind: job.outlet.kind,
                waiting: (queue.max_capacity() - queue.capacity()) as u64,
                dropped: job.dropped,
                counted: job.outlet.counted.borrow().clone(),
            }
        };
        self.jobs.iter().map(figures).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::RoomId;
    use crate::signal::message::Shown;

    fn started(room: &str) -> Happening {
        let room_id = Shown(RoomId::parse(room).unwrap());
        Happening::RoomStarted { room_id }
    }

    #[test]
    fn a_full_queue_loses_the_newest_which_is_counted_and_holds_up_nobody() {
        let (queue, mut waiting) = mpsc::channel(2);
        let (_counting, counted) = watch::channel(BTreeMap::from([("delivered", 7)]));
        let kind = OutletKind::Webhook;
        let mut outlets = Outlets::new(vec![Outlet {
            kind,
            queue,
            counted,
        }]);
        let mut reader = outlets.subscribe();
        for room in ["a", "b", "c"] {
            outlets.tell(Now::read(), started(room));
        }
        let first = waiting.try_recv().unwrap();
        assert_eq!(first.what, started("a"));
        let second = waiting.try_recv().unwrap();
        assert_eq!(second.what, started("b"));
        assert_ne!(first.id, second.id);
        assert!(waiting.try_recv().is_err());
        let figures = serde_json::to_value(outlets.figures()).unwrap();
        let expected = serde_json::json!(
            [{"kind": "webhook", "waiting": 0, "dropped": 1, "delivered": 7}]
        );
        assert_eq!(figures, expected);
        let read = std::iter::from_fn(|| reader.try_recv().ok());
        assert_eq!(read.count(), 3);
    }
}
