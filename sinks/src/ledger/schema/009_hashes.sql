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
