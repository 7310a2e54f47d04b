//! One connection to SQLite or PostgreSQL, and what is asked of either.

use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};

use super::statement::{Statement, Value};
use crate::signal::calls::{CallDetail, CallRow, Place, RecordingRow, SessionRow};

/// Compiled in, so that the binary needs no files beside it.
static MIGRATIONS: Migrator = sqlx::migrate!("src/call_log/migrations");

/// How long SQLite waits for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the database is.
#[derive(Debug, Clone)]
pub enum Address {
    /// A file.
    Sqlite(Box<SqliteConnectOptions>),
    /// A server.
    Postgres(Box<PgConnectOptions>),
}

impl Address {
    /// Reads `sqlite:FILE` or `postgres://USER:PASSWORD@HOST/DATABASE`.
    ///
    /// # Errors
    ///
    /// Why it is neither, as the end of a sentence. It does not quote the text, which may hold a
    /// password.
    pub fn parse(url: &str) -> Result<Self, String> {
        if url.starts_with("sqlite:") {
            let options = SqliteConnectOptions::from_str(url).map_err(|e| e.to_string())?;
            let options = options
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Normal)
                .busy_timeout(BUSY_TIMEOUT)
                .disable_statement_logging();
            return Ok(Self::Sqlite(Box::new(options)));
        }
        if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            let options = PgConnectOptions::from_str(url).map_err(|e| e.to_string())?;
            let options = options.disable_statement_logging();
            return Ok(Self::Postgres(Box::new(options)));
        }
        Err("it is neither `auto`, `off`, `sqlite:FILE` nor `postgres://..`".to_owned())
    }
}

/// One open connection.
#[derive(Debug)]
pub(super) enum Database {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

/// The same code for either kind of connection: the two have no type in common.
macro_rules! with {
    ($database:expr, $connection:ident => $body:expr) => {
        match $database {
            Database::Sqlite($connection) => $body,
            Database::Postgres($connection) => $body,
        }
    };
}

const LIST: &str = "SELECT id, server, kind, name, started_at, ended_at, end_reason, \
    (SELECT COUNT(*) FROM sessions WHERE call_id = calls.id) AS sessions FROM calls \
    WHERE started_at < $1 OR (started_at = $1 AND id < $2) \
    ORDER BY started_at DESC, id DESC LIMIT $3";

const SHOW: &str = "SELECT id, server, kind, name, started_at, ended_at, end_reason, \
    (SELECT COUNT(*) FROM sessions WHERE call_id = calls.id) AS sessions FROM calls \
    WHERE id = $1";

const SESSIONS: &str = "SELECT participant, identity, name, started_at, ended_at, end_reason \
    FROM sessions WHERE call_id = $1 ORDER BY started_at, id LIMIT 1000";

const RECORDINGS: &str = "SELECT name, started_at, ended_at, end_reason \
    FROM recordings WHERE call_id = $1 ORDER BY started_at, id LIMIT 1000";

macro_rules! call_row {
    ($row:expr) => {
        CallRow {
            id: $row.try_get("id")?,
            server: $row.try_get("server")?,
            kind: $row.try_get("kind")?,
            name: $row.try_get("name")?,
            started_at: $row.try_get("started_at")?,
            ended_at: $row.try_get("ended_at")?,
            end_reason: $row.try_get("end_reason")?,
            sessions: $row.try_get("sessions")?,
        }
    };
}

impl Database {
    /// Connects, and brings the tables up to date.
    pub(super) async fn open(address: &Address) -> Result<Self, sqlx::Error> {
        let mut database = match address {
            Address::Sqlite(options) => Self::Sqlite(options.connect().await?),
            Address::Postgres(options) => Self::Postgres(options.connect().await?),
        };
        with!(&mut database, connection => MIGRATIONS.run(connection).await)?;
        Ok(database)
    }

    /// Runs all of them, or none.
    pub(super) async fn write(&mut self, statements: &[Statement]) -> Result<(), sqlx::Error> {
        with!(self, connection => {
            let mut transaction = connection.begin().await?;
            for statement in statements {
                let mut query = sqlx::query(statement.sql);
                for value in &statement.values {
                    query = match value {
                        Value::Text(text) => query.bind(text.as_deref()),
                        Value::Number(number) => query.bind(*number),
                    };
                }
                query.execute(&mut *transaction).await?;
            }
            transaction.commit().await
        })
    }

    /// Those that began before `place`, the latest first.
    pub(super) async fn list(
        &mut self,
        place: &Place,
        limit: i64,
    ) -> Result<Vec<CallRow>, sqlx::Error> {
        with!(self, connection => {
            let query = sqlx::query(LIST).bind(place.started_at).bind(&place.id).bind(limit);
            let rows = query.fetch_all(connection).await?;
            rows.iter().map(|row| Ok(call_row!(row))).collect()
        })
    }

    pub(super) async fn show(&mut self, id: &str) -> Result<Option<CallDetail>, sqlx::Error> {
        with!(self, connection => {
            let found = sqlx::query(SHOW).bind(id).fetch_optional(&mut *connection).await?;
            let Some(row) = found else { return Ok(None) };
            let call = call_row!(row);
            let rows = sqlx::query(SESSIONS).bind(id).fetch_all(&mut *connection).await?;
            let participants = rows.iter().map(|row| Ok(SessionRow {
                participant: row.try_get("participant")?,
                user_id: row.try_get("identity")?,
                name: row.try_get("name")?,
                started_at: row.try_get("started_at")?,
                ended_at: row.try_get("ended_at")?,
                end_reason: row.try_get("end_reason")?,
            }));
            let participants = participants.collect::<Result<_, sqlx::Error>>()?;
            let rows = sqlx::query(RECORDINGS).bind(id).fetch_all(&mut *connection).await?;
            let recordings = rows.iter().map(|row| Ok(RecordingRow {
                name: row.try_get("name")?,
                started_at: row.try_get("started_at")?,
                ended_at: row.try_get("ended_at")?,
                end_reason: row.try_get("end_reason")?,
            }));
            let recordings = recordings.collect::<Result<_, sqlx::Error>>()?;
            Ok(Some(CallDetail { call, participants, recordings }))
        })
    }
}

/// Whether the same would fail again however often it is tried: the text or the rows are wrong,
/// and not the connection or the server.
pub(super) fn is_hopeless(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else {
        return false;
    };
    // Class 22 is "data exception" (SQL:2023).
    let is_bad_data = error
        .code()
        .is_some_and(|code| code.len() == 5 && code.starts_with("22"));
    is_bad_data
        || error.is_unique_violation()
        || error.is_foreign_key_violation()
        || error.is_check_violation()
}
