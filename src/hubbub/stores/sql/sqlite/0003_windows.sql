-- What durable channels remember; `gone` is what they have forgotten, while its key or the archive needs it.
CREATE TABLE hubbub_windows (
    "offset" INTEGER PRIMARY KEY,
    channel TEXT NOT NULL,
    previous INTEGER NOT NULL,
    published_at INTEGER NOT NULL,
    event TEXT,
    data BLOB NOT NULL,
    tags TEXT,
    ttl INTEGER NOT NULL,
    key TEXT,
    archive INTEGER NOT NULL,
    gone INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX hubbub_windows_channel ON hubbub_windows (channel, "offset") WHERE gone = 0;
CREATE INDEX hubbub_windows_gone ON hubbub_windows ("offset") WHERE gone = 1;

-- A single row: the last offset kept, and which process has the journal until when.
CREATE TABLE hubbub_journal (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    epoch TEXT NOT NULL,
    head INTEGER NOT NULL,
    watermark INTEGER NOT NULL,
    owner TEXT NOT NULL,
    until INTEGER NOT NULL
) STRICT;

ALTER TABLE hubbub_archive ADD COLUMN tags TEXT;
