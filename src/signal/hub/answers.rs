//! What the hub answers those who ask over HTTP.

use serde::Serialize;
use tokio::sync::oneshot::Sender;

use super::Hub;
use crate::signal::Now;
use crate::signal::figures::{Figures, Signalling};

/// What is asked, with the place where the answer is awaited.
#[derive(Debug)]
pub enum Question {
    /// How is the server?
    Health(Sender<Health>),
    /// What has been counted?
    Figures(Sender<Figures>),
}

/// The answer to `GET /health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Health {
    /// Always `healthy`: a hub that is not does not answer.
    pub status: &'static str,
    /// Rooms there are.
    pub rooms: usize,
    /// Participants in rooms.
    pub participants: usize,
    /// How many there may be.
    pub config: HealthConfig,
}

/// Part of [`Health`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct HealthConfig {
    /// Most rooms at once.
    pub max_rooms: usize,
    /// Most participants in one room.
    pub max_participants_per_room: usize,
}

impl Hub {
    pub(super) fn answer(&mut self, _now: Now, question: Question) {
        match question {
            // Whoever asked and did not wait for the answer needs none.
            Question::Health(reply) => drop(reply.send(self.health())),
            Question::Figures(reply) => drop(reply.send(self.figures())),
        }
    }

    fn health(&self) -> Health {
        Health {
            status: "healthy",
            rooms: self.directory.room_count(),
            participants: self.directory.peer_count(),
            config: HealthConfig {
                max_rooms: self.directory.options().max_rooms,
                max_participants_per_room: self.directory.options().max_participants,
            },
        }
    }

    fn figures(&self) -> Figures {
        let signalling = Signalling {
            sockets: self.clients.values().filter(|c| c.outbox.is_some()).count() as u64,
            rooms: self.directory.room_count() as u64,
            participants: self.directory.peer_count() as u64,
            ..self.signalling.clone()
        };
        Figures::new(signalling, self.shards.figures())
    }
}
