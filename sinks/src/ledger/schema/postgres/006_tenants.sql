-- Work is done for jobs, of which a tenant has any number; an entry belongs to the one that discovered it first.

-- Numbers are a tenant's own, so that its log alone says them. Number 0 is that of the job `default`, which every tenant has.
CREATE TABLE jobs (
    tenant   BIGINT NOT NULL REFERENCES tenants (id),
    number   BIGINT NOT NULL CHECK (number >= 0),
    name     TEXT COLLATE "C" NOT NULL CHECK (name <> ''),
    priority BIGINT NOT NULL CHECK (priority BETWEEN 0 AND 9),
    PRIMARY KEY (tenant, number),
    UNIQUE (tenant, name)
);

INSERT INTO jobs (tenant, number, name, priority) SELECT id, 0, 'default', 5 FROM tenants;

ALTER TABLE entries ADD COLUMN job BIGINT NOT NULL DEFAULT 0;

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
    picture     BIGINT NOT NULL,
    kind        TEXT NOT NULL,
    version     BIGINT NOT NULL CHECK (version >= 0),
    bits        BYTEA NOT NULL CHECK (length(bits) > 0),
    distinctive BOOLEAN NOT NULL,
    PRIMARY KEY (picture, kind, version)
);

INSERT INTO hashes (picture, kind, version, bits, distinctive)
    SELECT id, 'dct64', 1, int8send(phash), distinctive FROM pictures;

ALTER TABLE pictures DROP COLUMN phash, DROP COLUMN distinctive;
