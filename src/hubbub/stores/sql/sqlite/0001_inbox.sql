-- One row a user: everything up to `floor` is gone, `head` was the last cursor given.
CREATE TABLE hubbub_heads (
    id INTEGER PRIMARY KEY,
    user_id TEXT NOT NULL UNIQUE,
    head INTEGER NOT NULL,
    floor INTEGER NOT NULL DEFAULT 0,
    dropped INTEGER NOT NULL DEFAULT 0
) STRICT;

-- `inbox` is the user's `id` among the heads; `claimed` once it was given out as undelivered, or one of several devices has acked it.
CREATE TABLE hubbub_messages (
    inbox INTEGER NOT NULL,
    cursor INTEGER NOT NULL,
    type TEXT NOT NULL,
    payload BLOB NOT NULL,
    sent_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    claimed INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (inbox, cursor)
) STRICT;
CREATE INDEX hubbub_messages_unclaimed ON hubbub_messages (sent_at) WHERE claimed = 0;
CREATE INDEX hubbub_messages_expiry ON hubbub_messages (expires_at);

CREATE TABLE hubbub_keys (
    user_id TEXT NOT NULL,
    key TEXT NOT NULL,
    cursor INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX hubbub_keys_expiry ON hubbub_keys (expires_at);

CREATE TABLE hubbub_devices (
    user_id TEXT NOT NULL,
    device TEXT NOT NULL,
    acked INTEGER NOT NULL,
    seen_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, device)
) STRICT, WITHOUT ROWID;

CREATE TABLE hubbub_revocations (
    subject TEXT PRIMARY KEY,
    at INTEGER NOT NULL,
    until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
