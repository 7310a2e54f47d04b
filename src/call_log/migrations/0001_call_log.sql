-- The same text for SQLite and PostgreSQL. Times are milliseconds since 1970. A row without an
-- `ended_at` is of something that goes on, or whose end was lost with its server.

-- Rooms (kind `room`), and the calls and rooms of the dialects (`webrtc`, `call`, `p2p`, `mesh`).
CREATE TABLE calls (
    -- The name of the event that began it.
    id TEXT NOT NULL PRIMARY KEY,
    -- `call_log.server` of the server that wrote it.
    server TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    ended_at BIGINT,
    end_reason TEXT
);
CREATE INDEX calls_by_time ON calls (started_at, id);
CREATE INDEX calls_by_name ON calls (server, kind, name, ended_at);

-- Who was in them, from when to when.
CREATE TABLE sessions (
    id TEXT NOT NULL PRIMARY KEY,
    -- Null when the row of its call was lost.
    call_id TEXT,
    participant TEXT NOT NULL,
    identity TEXT,
    name TEXT,
    started_at BIGINT NOT NULL,
    ended_at BIGINT,
    end_reason TEXT
);
CREATE INDEX sessions_by_call ON sessions (call_id, started_at);

-- What was recorded of them.
CREATE TABLE recordings (
    id TEXT NOT NULL PRIMARY KEY,
    call_id TEXT,
    name TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    ended_at BIGINT,
    end_reason TEXT
);
CREATE INDEX recordings_by_call ON recordings (call_id, started_at);
