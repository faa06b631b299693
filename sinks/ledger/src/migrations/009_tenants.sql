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

-- Names that people of the field know.
ALTER TABLE sites RENAME COLUMN turns TO sequences;
ALTER TABLE early RENAME COLUMN turn TO sequence;
ALTER TABLE early RENAME TO reorder_buffer;
ALTER TABLE shown RENAME TO site_images;
ALTER TABLE sightings RENAME TO page_images;

-- A check of `state IN (…)` with more than two words makes a table of those words for every row that is written, which costs more than
-- writing the row. The same is said by comparisons now. SQLite cannot change a check, so the three tables are made anew, with the
-- rows and columns that they had; everything else about them stays as well.

CREATE TABLE events (
    seq     INTEGER PRIMARY KEY,
    tenant  INTEGER NOT NULL REFERENCES tenants (id),
    at_ms   INTEGER NOT NULL,
    kind    TEXT NOT NULL CHECK (
        kind = 'admitted' OR kind = 'stored' OR kind = 'detected' OR kind = 'visited' OR kind = 'sighted' OR kind = 'offered' OR
        kind = 'opened' OR kind = 'assigned' OR kind = 'retry' OR kind = 'rejected' OR kind = 'dead' OR kind = 'redriven'),
    entry   INTEGER,    -- the URL it is about
    picture INTEGER,    -- the picture it is about
    other   INTEGER,    -- the page that led there, the entry stood behind, or the representative
    body    TEXT CHECK (body IS NULL OR json_valid(body)),  -- the fault
    CHECK (entry IS NOT NULL OR picture IS NOT NULL)
) STRICT;

INSERT INTO events (seq, tenant, at_ms, kind, entry, picture, other, body)
    SELECT seq, tenant, at_ms,
        CASE kind WHEN 'kept' THEN 'stored' WHEN 'delivered' THEN 'detected' WHEN 'ruled' THEN 'assigned' ELSE kind END,
        entry, picture, other, body FROM facts ORDER BY seq;
DROP TABLE facts;

CREATE TRIGGER events_are_not_changed BEFORE UPDATE ON events
BEGIN
    SELECT RAISE(ABORT, 'events are never changed');
END;

CREATE TRIGGER events_are_not_deleted BEFORE DELETE ON events
BEGIN
    SELECT RAISE(ABORT, 'events are never deleted');
END;

CREATE TABLE pictures_new (
    id             INTEGER PRIMARY KEY,
    tenant         INTEGER NOT NULL REFERENCES tenants (id),
    content        BLOB NOT NULL CHECK (length(content) = 32),
    state          TEXT NOT NULL CHECK (state = 'open' OR state = 'settled' OR state = 'rejected' OR state = 'dead'),
    bytes          INTEGER NOT NULL CHECK (bytes >= 0),
    format         TEXT NOT NULL,
    width          INTEGER NOT NULL CHECK (width >= 0),
    height         INTEGER NOT NULL CHECK (height >= 0),
    attempts       INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0), -- detections that failed
    due_ms         INTEGER CHECK (due_ms IS NULL OR state = 'open'), -- of a scheduled retry
    reason         TEXT,                                             -- the last fault
    detail         TEXT,
    representative INTEGER REFERENCES pictures (id),                 -- by the last ruling; itself or NULL: itself
    distance       INTEGER CHECK ((distance IS NULL) = (representative IS NULL)),
    main           INTEGER REFERENCES entries (id),                  -- the smallest URL that leads to it
    urls           INTEGER NOT NULL DEFAULT 0 CHECK (urls >= 0),     -- image URLs that lead to it
    behind         INTEGER NOT NULL DEFAULT 0 CHECK (behind >= 0),   -- alternates of those URLs
    terminal_retry_ms      INTEGER CHECK (terminal_retry_ms IS NULL OR state = 'dead'), -- when a stream tries it nevertheless
    scale_ppm      INTEGER,                                          -- of the last detection that failed, in millionths
    uncounted         INTEGER NOT NULL DEFAULT 0,                       -- of the attempts, those that count towards no limit
    UNIQUE (tenant, content),
    CHECK ((urls = 0) = (main IS NULL))
) STRICT;

INSERT INTO pictures_new (id, tenant, content, state, bytes, format, width, height, attempts, due_ms, reason,
        detail, representative, distance, main, urls, behind, terminal_retry_ms, scale_ppm, uncounted)
    SELECT id, tenant, content, state, bytes, format, width, height, attempts, due_ms, reason,
        detail, representative, distance, main, urls, behind, revive_ms, scale_ppm, spared FROM pictures ORDER BY id;
DROP TABLE pictures;
ALTER TABLE pictures_new RENAME TO pictures;

CREATE INDEX pictures_represented ON pictures (representative) WHERE representative <> id;
CREATE INDEX pictures_waiting ON pictures (tenant, due_ms) WHERE due_ms IS NOT NULL;
CREATE INDEX pictures_terminal_retry ON pictures (tenant, terminal_retry_ms)
    WHERE terminal_retry_ms IS NOT NULL AND (representative IS NULL OR representative = id);

CREATE TABLE entries_new (
    id            INTEGER PRIMARY KEY,
    tenant        INTEGER NOT NULL REFERENCES tenants (id),
    key           BLOB NOT NULL CHECK (length(key) = 16),
    kind          TEXT NOT NULL CHECK (kind IN ('page', 'image')),
    state         TEXT NOT NULL CHECK (
        state = 'open' OR state = 'settled' OR state = 'alternate' OR state = 'rejected' OR state = 'dead'),
    depth         INTEGER CHECK ((depth IS NOT NULL) = (kind = 'page')),
    attempts      INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),   -- tries that failed
    due_ms        INTEGER CHECK (due_ms IS NULL OR state = 'open'),
    picture       INTEGER REFERENCES pictures (id) CHECK ((picture IS NOT NULL) = (kind = 'image' AND state = 'settled')),
    primary_entry INTEGER REFERENCES entries (id),  -- of an alternate: what it stands behind
    rank          INTEGER,                          -- of an alternate: 0 is the best
    site          INTEGER NOT NULL REFERENCES sites (id),
    url           TEXT NOT NULL,
    final_url     TEXT,                             -- once settled; NULL: as url
    http_status   INTEGER,
    links         INTEGER,                          -- of a page that was read
    images        INTEGER,
    reason        TEXT,                             -- the last fault
    detail        TEXT,
    headers       TEXT,                             -- evidence, as a JSON list of pairs
    skip          BLOB,                             -- of a page: 16 bytes of key for each page its links must not choose
    inline        BLOB,                             -- bytes of a data: URI while they are needed
    queue          INTEGER NOT NULL DEFAULT 1,       -- where it waits while it is open: one for each host
    sequence          INTEGER CHECK (sequence IS NULL OR state = 'open'), -- of a page that was not tried yet: its place at its site
    page_version       TEXT,                             -- of a page that was read: what it was, as JSON
    recrawl_ms      INTEGER CHECK (recrawl_ms IS NULL OR state = 'settled'), -- and when it is due again
    terminal_retry_ms     INTEGER CHECK (terminal_retry_ms IS NULL OR state IN ('rejected', 'dead')), -- when a stream tries it nevertheless
    version       TEXT,                             -- of a file: when it was changed last and its size, when it was discovered
    uncounted        INTEGER NOT NULL DEFAULT 0,       -- of the attempts, those that count towards no limit
    job           INTEGER NOT NULL DEFAULT 0,       -- that discovered it first
    UNIQUE (tenant, key),
    CHECK (state <> 'alternate' OR (kind = 'image' AND primary_entry IS NOT NULL AND rank IS NOT NULL))
) STRICT;

INSERT INTO entries_new (id, tenant, key, kind, state, depth, attempts, due_ms, picture, primary_entry, rank, site, url, final_url,
        http_status, links, images, reason, detail, headers, skip, inline, queue, sequence, page_version, recrawl_ms, terminal_retry_ms, version, uncounted)
    SELECT id, tenant, key, kind, state, depth, attempts, due_ms, picture, primary_entry, rank, site, url, final_url,
        http_status, links, images, reason, detail, headers, skip, inline, lane, turn, reading, again_ms, revive_ms, version, spared
    FROM entries ORDER BY id;
DROP TABLE entries;
ALTER TABLE entries_new RENAME TO entries;

CREATE INDEX entries_open ON entries (tenant, job, queue, due_ms, id) WHERE state = 'open';
CREATE INDEX entries_sequences ON entries (site, sequence) WHERE sequence IS NOT NULL;
CREATE INDEX entries_recrawl ON entries (tenant, job, queue, recrawl_ms, id) WHERE recrawl_ms IS NOT NULL;
CREATE INDEX entries_terminal_retry ON entries (tenant, job, queue, terminal_retry_ms, id) WHERE terminal_retry_ms IS NOT NULL;
CREATE INDEX entries_terminal_retry_of_site ON entries (site) WHERE terminal_retry_ms IS NOT NULL;
CREATE INDEX entries_of_site ON entries (site) WHERE kind = 'page';
CREATE INDEX entries_behind ON entries (primary_entry, rank) WHERE primary_entry IS NOT NULL;
CREATE INDEX entries_of_picture ON entries (picture) WHERE picture IS NOT NULL;
CREATE INDEX entries_by_url ON entries (tenant, kind, url);

-- What a job has come to is counted from its entries. A tenant whose only job is `default` pays nothing for it.
CREATE INDEX entries_of_job ON entries (tenant, job) WHERE job > 0;

INSERT INTO migrations (format, reader_min, writer_min) VALUES (9, 9, 9);
