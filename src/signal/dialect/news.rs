//! What happens in one dialect, for whoever wants to know besides those it happens to.

use std::collections::VecDeque;

use crate::signal::happening::{DialectName, EndReason, Happening};

/// What has happened and nobody has looked at, oldest first.
#[derive(Debug)]
pub struct News {
    dialect: DialectName,
    happenings: VecDeque<Happening>,
}

impl News {
    /// Nothing has happened.
    #[must_use]
    pub fn new(dialect: DialectName) -> Self {
        let happenings = VecDeque::new();
        Self {
            dialect,
            happenings,
        }
    }

    /// A room or a call began.
    pub fn started(&mut self, call: &str) {
        let (dialect, call_id) = (self.dialect, call.to_owned());
        self.happenings
            .push_back(Happening::CallStarted { dialect, call_id });
    }

    /// Somebody takes part in it.
    pub fn joined(&mut self, call: &str, user: &str) {
        self.happenings.push_back(Happening::CallJoined {
            dialect: self.dialect,
            call_id: call.to_owned(),
            user_id: user.to_owned(),
        });
    }

    /// Somebody no longer does.
    pub fn left(&mut self, call: &str, user: &str) {
        self.happenings.push_back(Happening::CallLeft {
            dialect: self.dialect,
            call_id: call.to_owned(),
            user_id: user.to_owned(),
        });
    }

    /// It is over, for those who are still in it too.
    pub fn ended(&mut self, call: &str, reason: EndReason) {
        self.happenings.push_back(Happening::CallEnded {
            dialect: self.dialect,
            call_id: call.to_owned(),
            reason,
        });
    }

    /// The oldest.
    pub fn poll(&mut self) -> Option<Happening> {
        self.happenings.pop_front()
    }
}
