-- +goose Up

-- The events of package inbox. Texts that a provider sends are bytea: text cannot hold every one of them.
CREATE TABLE idempotent_inbox_events (
    id              bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    namespace       text        NOT NULL,
    key             bytea       NOT NULL,
    source          text        NOT NULL,
    object          bytea,                -- hash of source and object, NULL if the event names none
    provider_id     bytea       NOT NULL, -- hash of source and the provider's id
    head            bytea       NOT NULL, -- what does not change, as msgpack
    received_at     timestamptz NOT NULL,
    receipts        bytea[]     NOT NULL, -- the first 20, as msgpack
    deliveries      integer     NOT NULL DEFAULT 1,
    state           text        NOT NULL DEFAULT 'queued',
    due             timestamptz NOT NULL DEFAULT now(), -- the order in which events are taken
    next_at         timestamptz NOT NULL DEFAULT now(), -- when it may be taken: due or, while it runs, the end of its lease
    redriven        boolean     NOT NULL DEFAULT false,
    token           text        NOT NULL DEFAULT '',    -- of the worker that took it last
    attempts        integer     NOT NULL DEFAULT 0,
    attempts_before integer     NOT NULL DEFAULT 0,
    interrupted     integer     NOT NULL DEFAULT 0,     -- leases that ran out since the last redrive
    redrives        integer     NOT NULL DEFAULT 0,
    redrive_names   bytea[]     NOT NULL DEFAULT '{}',
    cause           text        NOT NULL DEFAULT '',
    reason          bytea       NOT NULL DEFAULT '',
    waits_for       bytea       NOT NULL DEFAULT '',
    parked_until    timestamptz,
    settled_at      timestamptz,          -- NULL until it is settled
    dead            boolean     NOT NULL DEFAULT false,
    applied         boolean     NOT NULL DEFAULT false,
    changed         bytea,
    trail           bytea[]     NOT NULL, -- the last 64 steps, as msgpack
    steps           integer     NOT NULL DEFAULT 1,
    erased          boolean     NOT NULL DEFAULT false,
    payload_day     date,                 -- the payload's partition, NULL if there is none
    payload_until   timestamptz,          -- when a settled event's payload is past its retention
    expires_at      timestamptz NOT NULL, -- when a settled event is past its retention
    UNIQUE (namespace, key)
) WITH (fillfactor = 70); -- room for the updates of an event next to it

-- What is due, of the events that name no object and of those that do.
CREATE INDEX idempotent_inbox_events_due ON idempotent_inbox_events (namespace, redriven, due, id)
    WHERE settled_at IS NULL AND object IS NULL;
CREATE INDEX idempotent_inbox_events_object_due ON idempotent_inbox_events (namespace, redriven, due, id)
    WHERE settled_at IS NULL AND object IS NOT NULL;
CREATE INDEX idempotent_inbox_events_object ON idempotent_inbox_events (namespace, object, redriven, due, id)
    WHERE settled_at IS NULL AND object IS NOT NULL;
CREATE INDEX idempotent_inbox_events_history ON idempotent_inbox_events (namespace, object, received_at) WHERE object IS NOT NULL;
CREATE INDEX idempotent_inbox_events_provider_id ON idempotent_inbox_events (namespace, provider_id);
CREATE INDEX idempotent_inbox_events_received ON idempotent_inbox_events (namespace, received_at, id);
CREATE INDEX idempotent_inbox_events_dead ON idempotent_inbox_events (namespace) WHERE dead;
CREATE INDEX idempotent_inbox_events_expired ON idempotent_inbox_events (namespace, expires_at) WHERE settled_at IS NOT NULL;

-- Payloads, in one partition for each day on which they are dropped.
CREATE TABLE idempotent_inbox_payloads (
    day     date   NOT NULL,
    event   bigint NOT NULL,
    payload bytea  NOT NULL, -- as msgpack
    PRIMARY KEY (day, event)
) PARTITION BY RANGE (day);

-- Objects that events name. One event of an object runs at a time.
CREATE TABLE idempotent_inbox_objects (
    namespace  text        NOT NULL,
    object     bytea       NOT NULL,
    busy_event bigint,
    busy_until timestamptz NOT NULL DEFAULT '-infinity', -- the lease of busy_event
    seen_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (namespace, object)
) WITH (fillfactor = 70);

-- Positions of objects in the orders of a router.
CREATE TABLE idempotent_inbox_positions (
    namespace  text        NOT NULL,
    object     bytea       NOT NULL,
    ordering   bytea       NOT NULL,
    position   bytea       NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (namespace, object, ordering)
);
CREATE INDEX idempotent_inbox_positions_expires_at ON idempotent_inbox_positions (namespace, expires_at);

-- Outcomes of handlers, written in the transaction of the handler.
CREATE TABLE idempotent_inbox_runs (
    namespace  text        NOT NULL,
    key_hash   bytea       NOT NULL,
    attempts   integer     NOT NULL DEFAULT 0, -- that ended without an outcome
    outcome    bytea,                          -- a record as package idempotent encodes it, NULL without an outcome
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (namespace, key_hash)
);
CREATE INDEX idempotent_inbox_runs_expires_at ON idempotent_inbox_runs (namespace, expires_at);

-- The rates of redrives.
CREATE TABLE idempotent_inbox_redrives (
    namespace  text        NOT NULL,
    name       bytea       NOT NULL,
    next_at    timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (namespace, name)
);

-- +goose Down

DROP TABLE idempotent_inbox_events, idempotent_inbox_payloads, idempotent_inbox_objects, idempotent_inbox_positions,
    idempotent_inbox_runs, idempotent_inbox_redrives;
