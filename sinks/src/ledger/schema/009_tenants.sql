-- Work is done for jobs, of which a tenant has any number; an entry belongs to the one that discovered it first.

-- Numbers are a tenant's own, so that its log alone says them. Number 0 is that of the job `default`, which every tenant has.
CREATE TABLE jobs (
    tenant   INTEGER NOT NULL REFERENCES tenants (id),
    number   INTEGER NOT NULL CHECK (number >= 0),
    name     TEXT NOT NULL CHECK (name <> ''),
    priority INTEGER NOT NULL CHECK (priority BETWEEN 0 AND 9),
    PRIMARY KEY (tenant, number),
    UNIQUE (tenant, name)
) STRICT, WITHOUT ROWID;

INSERT INTO jobs (tenant, number, name, priority) SELECT id, 0, 'default', 5 FROM tenants;

ALTER TABLE entries ADD COLUMN job INTEGER NOT NULL DEFAULT 0;

-- Each job has lanes of its own.
DROP INDEX entries_open;
DROP INDEX entries_again;
DROP INDEX entries_revive;
CREATE INDEX entries_open ON entries (tenant, job, lane, due_ms, id) WHERE state = 'open';
CREATE INDEX entries_again ON entries (tenant, job, lane, again_ms, id) WHERE again_ms IS NOT NULL;
CREATE INDEX entries_revive ON entries (tenant, job, lane, revive_ms, id) WHERE revive_ms IS NOT NULL;

-- What a job has come to is counted from its entries. A tenant whose only job is `default` pays nothing for it.
CREATE INDEX entries_of_job ON entries (tenant, job) WHERE job > 0;

-- Perceptual hashes are rows: a picture has one of each kind and version.
CREATE TABLE hashes (
    picture     INTEGER NOT NULL REFERENCES pictures (id),
    kind        TEXT NOT NULL,
    version     INTEGER NOT NULL CHECK (version >= 0),
    bits        BLOB NOT NULL CHECK (length(bits) > 0),
    distinctive INTEGER NOT NULL CHECK (distinctive IN (0, 1)),
    PRIMARY KEY (picture, kind, version)
) STRICT, WITHOUT ROWID;

INSERT INTO hashes (picture, kind, version, bits, distinctive)
    SELECT id, 'dct64', 1, unhex(printf('%016x', phash)), distinctive FROM pictures;

ALTER TABLE pictures DROP COLUMN phash;
ALTER TABLE pictures DROP COLUMN distinctive;

INSERT INTO migrations (format, reader_min, writer_min) VALUES (9, 9, 9);
