-- +goose Up

-- The records of operations. A record is written in the transaction of the operation's effect, so that both are there
-- or neither is.
CREATE TABLE idempotent_records (
    namespace   text        NOT NULL,
    key_hash    bytea       NOT NULL, -- SHA-256 of the key
    fingerprint bytea,                -- hash of the request, NULL if Run was given none
    kind        text        NOT NULL, -- value, error or panic: for people; outcome has it, too
    outcome     bytea       NOT NULL, -- the record as package idempotent encodes it, with a checksum
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at  timestamptz NOT NULL, -- 'infinity' for Forever
    PRIMARY KEY (namespace, key_hash)
);

-- Prune reads the oldest expired records of a namespace.
CREATE INDEX idempotent_records_expires_at ON idempotent_records (namespace, expires_at);

-- +goose Down

DROP TABLE idempotent_records;
