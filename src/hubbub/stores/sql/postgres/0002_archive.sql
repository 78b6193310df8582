CREATE TABLE hubbub_archive (
    channel text COLLATE "C" NOT NULL,
    epoch text COLLATE "C" NOT NULL,
    "offset" bigint NOT NULL,
    event text,
    data bytea NOT NULL,
    published_at bigint NOT NULL,
    PRIMARY KEY (channel, epoch, "offset")
);
CREATE INDEX hubbub_archive_order ON hubbub_archive (channel, published_at, epoch, "offset");

-- A single row: how far the archiver came.
CREATE TABLE hubbub_archive_position (
    id integer PRIMARY KEY CHECK (id = 1),
    position text NOT NULL
);
