CREATE TABLE hubbub_archive (
    channel TEXT NOT NULL,
    epoch TEXT NOT NULL,
    "offset" INTEGER NOT NULL,
    event TEXT,
    data BLOB NOT NULL,
    published_at INTEGER NOT NULL,
    PRIMARY KEY (channel, epoch, "offset")
) STRICT;
CREATE INDEX hubbub_archive_order ON hubbub_archive (channel, published_at, epoch, "offset");

-- A single row: how far the archiver came.
CREATE TABLE hubbub_archive_position (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    position TEXT NOT NULL
) STRICT;
