//! Writes events in their order, and answers what is asked between two writes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{interval, sleep, timeout};

use super::Options;
use super::database::{Database, is_hopeless};
use super::statement::{self, Statement, statements};
use crate::backoff::Backoff;
use crate::signal::calls::{CallList, Question, Unavailable};
use crate::signal::happening::Notice;
use crate::signal::unix_millis;

/// Events written in one transaction.
const BATCH_EVENTS: usize = 100;

/// How long one transaction or question may take. Then the connection is given up.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long after a failure it is tried again.
const PAUSES: Backoff = Backoff {
    first: Duration::from_millis(250),
    longest: Duration::from_secs(15),
};

/// How often what is too old is looked for.
const FORGET_INTERVAL: Duration = Duration::from_secs(3600);

/// What the writer has counted.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    /// Events that are in the database, or that it does not hold.
    written: u64,
    /// Transactions that failed and were tried again.
    retried: u64,
    /// Statements that the database would never take.
    refused: u64,
    /// Gauge: 1 while there is a connection.
    connected: u64,
}

impl Counts {
    pub(super) fn by_name(&self) -> BTreeMap<&'static str, u64> {
        BTreeMap::from([
            ("written", self.written),
            ("retried", self.retried),
            ("refused", self.refused),
            ("connected", self.connected),
        ])
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Writer {
    options: Options,
    events: mpsc::Receiver<Arc<Notice>>,
    questions: mpsc::Receiver<Question>,
    counting: watch::Sender<BTreeMap<&'static str, u64>>,
    counts: Counts,
    /// `None` until it can be reached.
    database: Option<Database>,
    /// Whether what an earlier run left open has been ended.
    has_tidied: bool,
    /// Whether it is down, which was told.
    is_failing: bool,
}

impl Writer {
    pub(super) fn new(
        options: Options,
        events: mpsc::Receiver<Arc<Notice>>,
        questions: mpsc::Receiver<Question>,
        counting: watch::Sender<BTreeMap<&'static str, u64>>,
    ) -> Self {
        Self {
            options,
            events,
            questions,
            counting,
            counts: Counts::default(),
            database: None,
            has_tidied: false,
            is_failing: false,
        }
    }

    /// Runs until the queue of events is empty and its other end is gone; then ends what is open.
    pub(super) async fn run(mut self) {
        let mut forget = interval(FORGET_INTERVAL);
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                biased;
                count = self.events.recv_many(&mut batch, BATCH_EVENTS) => if count == 0 {
                    break;
                },
                Some(question) = self.questions.recv() => {
                    self.answer(question).await;
                    continue;
                }
                // The first tick is at once: a database that is down is told at the start.
                _ = forget.tick() => {
                    self.forget().await;
                    continue;
                }
            }
            let server = self.options.server.as_str();
            let due: Vec<_> = batch
                .iter()
                .flat_map(|notice| statements(server, notice))
                .collect();
            self.write(due).await;
            self.counts.written += batch.len() as u64;
            self.publish();
        }
        let open = statement::end_all(&self.options.server, unix_millis(), "server-stopped");
        self.write(open).await;
    }

    /// Tries until it is written; meanwhile questions are told that there is no answer.
    async fn write(&mut self, mut due: Vec<Statement>) {
        let mut failures = 0;
        while !due.is_empty() {
            let Some(error) = self.try_write(&due).await.err() else {
                self.tell_of_success();
                return;
            };
            if is_hopeless(&error) {
                due = self.without_hopeless(due).await;
                continue;
            }
            self.tell_of_failure(&error);
            self.counts.retried += 1;
            self.publish();
            let pause = PAUSES.pause(failures);
            failures += 1;
            let mut over = std::pin::pin!(sleep(pause));
            loop {
                tokio::select! {
                    () = &mut over => break,
                    Some(question) = self.questions.recv() => refuse(question),
                }
            }
        }
    }

    /// Writes one at a time: what is left is from the first on that may succeed later.
    async fn without_hopeless(&mut self, due: Vec<Statement>) -> Vec<Statement> {
        let mut due = due.into_iter();
        while let Some(statement) = due.next() {
            match self.try_write(std::slice::from_ref(&statement)).await {
                Ok(()) => {}
                Err(error) if is_hopeless(&error) => {
                    self.counts.refused += 1;
                    tracing::debug!("the database refused a row of the call log: {error}");
                }
                Err(_) => return [statement].into_iter().chain(due).collect(),
            }
        }
        Vec::new()
    }

    async fn try_write(&mut self, due: &[Statement]) -> Result<(), sqlx::Error> {
        self.try_open().await?;
        let database = self.database.as_mut().ok_or(sqlx::Error::PoolClosed)?;
        let written = timeout(DATABASE_TIMEOUT, database.write(due)).await;
        let written = written.unwrap_or_else(|_| Err(too_slow()));
        self.drop_if_broken(&written);
        written
    }

    /// Opens the database if it is not open; once, ends what an earlier run left open.
    async fn try_open(&mut self) -> Result<(), sqlx::Error> {
        if self.database.is_some() {
            return Ok(());
        }
        let opened = timeout(DATABASE_TIMEOUT, Database::open(&self.options.address)).await;
        let mut database = opened.unwrap_or_else(|_| Err(too_slow()))?;
        if !self.has_tidied {
            let lost = statement::end_all(&self.options.server, unix_millis(), "server-lost");
            let tidied = timeout(DATABASE_TIMEOUT, database.write(&lost)).await;
            tidied.unwrap_or_else(|_| Err(too_slow()))?;
            self.has_tidied = true;
        }
        self.database = Some(database);
        self.counts.connected = 1;
        self.publish();
        Ok(())
    }

    fn drop_if_broken<T>(&mut self, done: &Result<T, sqlx::Error>) {
        if done.as_ref().is_err_and(|error| !is_hopeless(error)) {
            self.database = None;
            self.counts.connected = 0;
        }
    }

    /// Deletes what is too old. A database that is down is asked again in an hour.
    async fn forget(&mut self) {
        let kept_ms = self.options.days.saturating_mul(24 * 60 * 60 * 1000);
        let due = match self.options.days {
            0 => Vec::new(),
            _ => statement::forget(&self.options.server, unix_millis().saturating_sub(kept_ms)),
        };
        match self.try_write(&due).await {
            Ok(()) => self.tell_of_success(),
            Err(error) => self.tell_of_failure(&error),
        }
        self.publish();
    }

    async fn answer(&mut self, question: Question) {
        if self.try_open().await.is_err() {
            return refuse(question);
        }
        let Some(database) = &mut self.database else {
            return refuse(question);
        };
        // Whoever asked and did not wait for the answer needs none.
        match question {
            Question::List(place, limit, reply) => {
                let listed = database.list(&place, i64::from(limit) + 1);
                let listed = timeout(DATABASE_TIMEOUT, listed).await;
                let listed = listed.unwrap_or_else(|_| Err(too_slow()));
                self.drop_if_broken(&listed);
                let list = listed.map(|calls| CallList::new(calls, limit as usize));
                drop(reply.send(list.map_err(|_| Unavailable)));
            }
            Question::Show(id, reply) => {
                let shown = timeout(DATABASE_TIMEOUT, database.show(&id)).await;
                let shown = shown.unwrap_or_else(|_| Err(too_slow()));
                self.drop_if_broken(&shown);
                drop(reply.send(shown.map_err(|_| Unavailable)));
            }
        }
    }

    fn publish(&self) {
        self.counting.send_replace(self.counts.by_name());
    }

    fn tell_of_failure(&mut self, error: &sqlx::Error) {
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::warn!(
                "the call log's database cannot be written: {error}; calls go on, and what \
                 happens waits in memory for it"
            );
        }
    }

    fn tell_of_success(&mut self) {
        if std::mem::take(&mut self.is_failing) {
            tracing::info!("the call log's database takes rows again");
        }
    }
}

fn refuse(question: Question) {
    match question {
        Question::List(_, _, reply) => drop(reply.send(Err(Unavailable))),
        Question::Show(_, reply) => drop(reply.send(Err(Unavailable))),
    }
}

fn too_slow() -> sqlx::Error {
    let text = "it did not answer in time";
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, text))
}
