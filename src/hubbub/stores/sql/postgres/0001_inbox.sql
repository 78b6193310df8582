-- One row a user: everything up to `floor` is gone, `head` was the last cursor given.
CREATE TABLE hubbub_heads (
    user_id text COLLATE "C" PRIMARY KEY,
    head bigint NOT NULL,
    floor bigint NOT NULL DEFAULT 0,
    dropped bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 70);

-- `claimed` once it was given out as undelivered, or one of several devices has acked it.
CREATE TABLE hubbub_messages (
    user_id text COLLATE "C" NOT NULL,
    cursor bigint NOT NULL,
    type text NOT NULL,
    payload bytea NOT NULL,
    sent_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    claimed boolean NOT NULL DEFAULT false,
    PRIMARY KEY (user_id, cursor)
);
CREATE INDEX hubbub_messages_unclaimed ON hubbub_messages (sent_at) WHERE NOT claimed;
CREATE INDEX hubbub_messages_expiry ON hubbub_messages (expires_at);

CREATE TABLE hubbub_keys (
    user_id text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    cursor bigint NOT NULL,
    expires_at bigint NOT NULL,
    PRIMARY KEY (user_id, key)
);
CREATE INDEX hubbub_keys_expiry ON hubbub_keys (expires_at);

CREATE TABLE hubbub_devices (
    user_id text COLLATE "C" NOT NULL,
    device text COLLATE "C" NOT NULL,
    acked bigint NOT NULL,
    seen_at bigint NOT NULL,
    PRIMARY KEY (user_id, device)
);

CREATE TABLE hubbub_revocations (
    subject text COLLATE "C" PRIMARY KEY,
    at bigint NOT NULL,
    until bigint NOT NULL
);
