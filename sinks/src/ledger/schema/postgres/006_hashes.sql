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
