-- What is to be sent, in the order in which it is; `failed_at` once it was set aside, with the reason in `error`.
-- One transaction writes at a time: numbers are in commit order, and AUTOINCREMENT gives none twice.
CREATE TABLE hubbub_outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('publish', 'send')),
    target TEXT NOT NULL,
    event TEXT,
    data TEXT,
    key TEXT,
    tags TEXT,
    ttl REAL,
    durable INTEGER NOT NULL DEFAULT 1,
    created_at INTEGER NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)),
    tries INTEGER NOT NULL DEFAULT 0,
    failed_at INTEGER,
    error TEXT
) STRICT;
CREATE INDEX hubbub_outbox_waiting ON hubbub_outbox (id) WHERE failed_at IS NULL;

-- Who relays, until when in milliseconds since 1970; `fence` grows with each other owner.
CREATE TABLE hubbub_outbox_relay (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    owner TEXT NOT NULL,
    fence INTEGER NOT NULL,
    until INTEGER NOT NULL
) STRICT;
INSERT INTO hubbub_outbox_relay VALUES (1, '', 0, 0);
