-- What is to be sent, in the order in which it is; `failed_at` once it was set aside, with the reason in `error`.
CREATE TABLE hubbub_outbox (
    id bigint PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('publish', 'send')),
    target text COLLATE "C" NOT NULL,
    event text,
    data text,
    key text,
    tags text,
    ttl double precision,
    durable boolean NOT NULL DEFAULT true,
    created_at bigint NOT NULL DEFAULT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint),
    tries integer NOT NULL DEFAULT 0,
    failed_at bigint,
    error text,
    txid xid8 NOT NULL DEFAULT pg_current_xact_id()
);
CREATE INDEX hubbub_outbox_waiting ON hubbub_outbox (id) WHERE failed_at IS NULL;
CREATE SEQUENCE hubbub_outbox_id OWNED BY hubbub_outbox.id;

-- The number is taken behind the lock, which lasts until the commit: along a target, numbers are in commit order.
CREATE FUNCTION hubbub_outbox_insert() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    PERFORM pg_advisory_xact_lock(1751478895, hashtext(NEW.kind || ' ' || NEW.target))
    ; PERFORM pg_notify('hubbub_outbox', '')
    ; NEW.id = nextval(pg_get_serial_sequence(CAST(CAST(TG_RELID AS regclass) AS text), 'id'))
    ; RETURN NEW
    ; END $$;
CREATE TRIGGER hubbub_outbox_insert BEFORE INSERT ON hubbub_outbox FOR EACH ROW EXECUTE FUNCTION hubbub_outbox_insert();

-- Who relays, until when; `fence` grows with each other owner.
CREATE TABLE hubbub_outbox_relay (
    id integer PRIMARY KEY CHECK (id = 1),
    owner text NOT NULL,
    fence bigint NOT NULL,
    until timestamptz NOT NULL
);
INSERT INTO hubbub_outbox_relay VALUES (1, '', 0, '-infinity');
