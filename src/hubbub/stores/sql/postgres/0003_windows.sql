-- What durable channels remember; `gone` is what they have forgotten, while its key or the archive needs it.
CREATE TABLE hubbub_windows (
    "offset" bigint PRIMARY KEY,
    channel text COLLATE "C" NOT NULL,
    previous bigint NOT NULL,
    published_at bigint NOT NULL,
    event text,
    data bytea NOT NULL,
    tags text,
    ttl bigint NOT NULL,
    key text,
    archive integer NOT NULL,
    gone integer NOT NULL DEFAULT 0
);
CREATE INDEX hubbub_windows_channel ON hubbub_windows (channel, "offset") WHERE gone = 0;
CREATE INDEX hubbub_windows_gone ON hubbub_windows ("offset") WHERE gone = 1;

-- A single row: the last offset kept, and which process has the journal until when.
CREATE TABLE hubbub_journal (
    id integer PRIMARY KEY CHECK (id = 1),
    epoch text NOT NULL,
    head bigint NOT NULL,
    watermark bigint NOT NULL,
    owner text NOT NULL,
    until bigint NOT NULL
);

ALTER TABLE hubbub_archive ADD COLUMN tags text;
