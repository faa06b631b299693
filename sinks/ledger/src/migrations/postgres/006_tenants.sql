-- Names that people of the field know.
ALTER TABLE sites RENAME COLUMN turns TO sequences;
ALTER TABLE entries RENAME COLUMN lane TO queue;
ALTER TABLE entries RENAME COLUMN turn TO sequence;
ALTER TABLE entries RENAME COLUMN spared TO uncounted;
ALTER TABLE entries RENAME COLUMN reading TO page_version;
ALTER TABLE entries RENAME COLUMN again_ms TO recrawl_ms;
ALTER TABLE entries RENAME COLUMN revive_ms TO terminal_retry_ms;
ALTER TABLE pictures RENAME COLUMN spared TO uncounted;
ALTER TABLE pictures RENAME COLUMN revive_ms TO terminal_retry_ms;
ALTER TABLE runs RENAME COLUMN heir TO successor;
ALTER TABLE runs RENAME COLUMN beat_at TO heartbeat_at;
ALTER TABLE runs RENAME COLUMN again_at TO recrawls_since;
ALTER TABLE early RENAME COLUMN turn TO sequence;
ALTER TABLE early RENAME TO reorder_buffer;
ALTER TABLE shown RENAME TO site_images;
ALTER TABLE sightings RENAME TO page_images;
ALTER INDEX entries_turns RENAME TO entries_sequences;
ALTER INDEX entries_revive_of_site RENAME TO entries_terminal_retry_of_site;
ALTER INDEX pictures_revive RENAME TO pictures_terminal_retry;

-- What happened, for people and for views that follow it, is told in events; facts are what commits say.
ALTER TABLE facts RENAME TO events;
ALTER INDEX facts_pkey RENAME TO events_pkey;
ALTER TABLE events DROP CONSTRAINT facts_kind_check;
ALTER TABLE events DISABLE TRIGGER facts_are_not_changed;
UPDATE events SET kind = CASE kind WHEN 'kept' THEN 'stored' WHEN 'delivered' THEN 'detected' ELSE 'assigned' END
    WHERE kind IN ('kept', 'delivered', 'ruled');
ALTER TABLE events ENABLE TRIGGER facts_are_not_changed;
ALTER TABLE events ADD CONSTRAINT events_kind_check CHECK (kind IN (
    'admitted', 'offered', 'opened', 'sighted', 'visited', 'stored', 'detected', 'assigned',
    'retry', 'rejected', 'dead', 'redriven'));

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

-- Each job has queues of its own.
DROP INDEX entries_open;
DROP INDEX entries_again;
DROP INDEX entries_revive;
CREATE INDEX entries_open ON entries (tenant, job, queue, due_ms, id) WHERE state = 'open';
CREATE INDEX entries_recrawl ON entries (tenant, job, queue, recrawl_ms, id) WHERE recrawl_ms IS NOT NULL;
CREATE INDEX entries_terminal_retry ON entries (tenant, job, queue, terminal_retry_ms, id) WHERE terminal_retry_ms IS NOT NULL;

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

-- Rows that change while they are young stay where they are, so that no index has to learn of it: there is room beside them, and no
-- index follows what changes.

-- A picture is stored, and looked at soon after. Which of them are open is asked when a run takes over what another left.
DROP INDEX pictures_open;
ALTER TABLE pictures SET (fillfactor = 50);
