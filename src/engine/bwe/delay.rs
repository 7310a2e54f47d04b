//! From the delays of packets to how the path is used: arrival groups, trend, usage, queue.

use super::groups::Groups;
use super::overuse::OveruseDetector;
use super::queue::Queue;
use super::sent::Sent;
use super::trendline::Trendline;

/// The delay path of the estimator.
#[derive(Debug)]
pub(super) struct Delay {
    groups: Groups,
    trendline: Trendline,
    pub(super) detector: OveruseDetector,
    pub(super) queue: Queue,
}

impl Delay {
    /// Nothing has arrived.
    pub(super) fn new() -> Self {
        Self {
            groups: Groups::default(),
            trendline: Trendline::new(),
            detector: OveruseDetector::new(),
            queue: Queue::default(),
        }
    }

    /// A packet arrived that was not sent to fill the path.
    pub(super) fn on_arrived(&mut self, now_us: u64, sent: Sent, arrival_us: i64) {
        let (told_us, sent_us) = (now_us as i64, sent.at_us as i64);
        if let Some(delta) = self.groups.add(told_us, sent_us, arrival_us) {
            let trend = self.trendline.add(delta);
            self.detector.add(trend, delta.send_us, delta.at_us);
            self.queue.on_delay(now_us, trend.delay_ms);
        }
    }
}
