//! What a shard counts, by name.

use super::Turn;
use crate::shard::tcp::Port;
use crate::shard::{Driver, Steering};

impl Turn {
    /// Everything, for a snapshot.
    pub(super) fn counters(&self) -> Vec<(&'static str, u64)> {
        let (udp_in, udp_out) = (self.udp_in.counts(), self.udp_out.counts());
        let (rings, reports) = (self.neighbours.counts(), self.reports.counts());
        let tcp = self.tcp.iter().flat_map(Port::counters);
        let mut counters = vec![
            ("turns", self.counts.turns),
            ("busy_us", self.counts.busy_ns / 1000),
            ("command_queue", self.commands.len() as u64),
            ("commands", self.counts.commands),
            ("copies", self.counts.copies),
            ("copies_dropped", self.counts.copies_dropped),
            ("udp_in_datagrams", udp_in.datagrams),
            ("udp_in_bytes", udp_in.bytes),
            ("udp_in_messages", udp_in.messages),
            ("udp_in_unusable", udp_in.unusable),
            ("udp_in_errors", udp_in.errors),
            ("udp_in_lost", udp_in.lost),
            ("feedback_in_datagrams", self.counts.feedback),
            ("udp_out_datagrams", udp_out.datagrams),
            ("udp_out_bytes", udp_out.bytes),
            ("udp_out_entries", udp_out.entries),
            ("gso_entries", udp_out.gso_entries),
            ("gso_segments", udp_out.gso_segments),
            ("gso_refused", udp_out.gso_refused),
            ("gso_resent_singly", udp_out.resent_singly),
            ("udp_out_blocked", udp_out.blocked),
            ("udp_out_backlog", self.udp_out.queued() as u64),
            ("udp_out_backlog_dropped", udp_out.backlog_dropped),
            ("udp_out_refused", udp_out.refused),
            ("handoffs_in", rings.taken),
            ("handoffs_out", rings.given),
            ("handoffs_dropped", rings.dropped),
            ("handoff_facts_dropped", rings.facts_dropped),
            ("learn_failed", self.counts.learn_failed),
            ("events", reports.events),
            ("events_dropped", reports.dropped),
            ("report_queue_full", reports.full),
            ("steering_ebpf", u64::from(self.steering == Steering::Ebpf)),
            ("steering_cbpf", u64::from(self.steering == Steering::Cbpf)),
            (
                "steering_handoff",
                u64::from(self.steering == Steering::Handoff),
            ),
            ("driver_glommio", u64::from(self.driver == Driver::Glommio)),
            ("driver_epoll", u64::from(self.driver == Driver::Epoll)),
        ];
        counters.extend(tcp);
        counters
    }
}
