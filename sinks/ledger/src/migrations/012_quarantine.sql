-- Facts that were refused, each for itself: by the database, or because they speak of a step that cannot be. What a row says is kept as
-- bytes, which every database takes. The log says the same (records of `commits`), so these rows follow from it like all others.

CREATE TABLE quarantine (
    tenant  INTEGER NOT NULL REFERENCES tenants (id),
    id      BLOB NOT NULL,                              -- SHA-256 of kind and subject: the same fact is there once
    kind    TEXT NOT NULL,                              -- what kind of fact
    subject BLOB NOT NULL,                              -- the URL or picture that it is about
    key     BLOB,                                       -- of the page, image or frame that it is about
    job     INTEGER,                                    -- whose work it is
    entry   INTEGER,                                    -- the entry that it is about, if there is one
    picture INTEGER,                                    -- the picture
    withheld INTEGER NOT NULL CHECK (withheld IN (0, 1)),   -- whether the work is not given out although it is open
    again   INTEGER NOT NULL CHECK (again IN (0, 1)),   -- whether the body is taken in anew when it is driven again
    reason  TEXT NOT NULL,
    body    BLOB NOT NULL,                              -- the fact, as a record of the log
    at_ms   INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX quarantine_of_entry ON quarantine (entry);
CREATE INDEX quarantine_of_picture ON quarantine (picture);
CREATE INDEX quarantine_withheld ON quarantine (tenant) WHERE withheld;

INSERT INTO migrations (format, reader_min, writer_min) VALUES (12, 12, 12);
