-- Facts that were refused, each for itself: by the database, or because they speak of a step that cannot be. What a row says is kept as
-- bytes, which every database takes. The log says the same (records of `commits`), so these rows follow from it like all others.

CREATE TABLE quarantine (
    tenant  BIGINT NOT NULL REFERENCES tenants (id),
    id      BYTEA NOT NULL,                             -- SHA-256 of kind and subject: the same fact is there once
    kind    TEXT NOT NULL,                              -- what kind of fact
    subject BYTEA NOT NULL,                             -- the URL or picture that it is about
    key     BYTEA,                                      -- of the page, image or frame that it is about
    job     BIGINT,                                     -- whose work it is
    entry   BIGINT,                                     -- the entry that it is about, if there is one
    picture BIGINT,                                     -- the picture
    withheld BOOLEAN NOT NULL,                           -- whether the work is not given out although it is open
    again   BOOLEAN NOT NULL,                           -- whether the body is taken in anew when it is driven again
    reason  TEXT NOT NULL,
    body    BYTEA NOT NULL,                             -- the fact, as a record of the log
    at_ms   BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);

CREATE INDEX quarantine_of_entry ON quarantine (entry);
CREATE INDEX quarantine_of_picture ON quarantine (picture);
CREATE INDEX quarantine_withheld ON quarantine (tenant) WHERE withheld;
