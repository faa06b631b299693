-- The log says everything: what each commit was asked, in order and compressed, so that all rows follow from it.

CREATE TABLE commits (
    seq     INTEGER PRIMARY KEY,
    tenant  INTEGER NOT NULL REFERENCES tenants (id),
    at_ms   INTEGER NOT NULL,
    run     INTEGER,                                -- on a server, which run wrote it
    records INTEGER NOT NULL CHECK (records > 0),
    body    BLOB NOT NULL                           -- zstd of JSON lines: a header, then the records
) STRICT;

CREATE INDEX commits_of_tenant ON commits (tenant, seq);

CREATE TRIGGER commits_are_not_changed BEFORE UPDATE ON commits
BEGIN
    SELECT RAISE(ABORT, 'the log is never changed');
END;

CREATE TRIGGER commits_are_not_deleted BEFORE DELETE ON commits
BEGIN
    SELECT RAISE(ABORT, 'nothing of the log is ever deleted');
END;

-- Whether the log of a tenant begins with its first row. That of a tenant of an older format begins in the middle.
ALTER TABLE tenants ADD COLUMN whole_log INTEGER NOT NULL DEFAULT 1 CHECK (whole_log IN (0, 1));
UPDATE tenants SET whole_log = 0;

-- Which formats there were, and for each the oldest formats whose readers and writers can use it.
CREATE TABLE migrations (
    format     INTEGER PRIMARY KEY,
    reader_min INTEGER NOT NULL,
    writer_min INTEGER NOT NULL
) STRICT;
INSERT INTO migrations (format, reader_min, writer_min) VALUES (8, 8, 8);

-- Results are read in the order of URLs, a page at a time.
CREATE INDEX entries_by_url ON entries (tenant, kind, url);
