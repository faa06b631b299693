-- Which image offers which other addresses of its picture, the best (rank 0) first. An address may be offered by several.
CREATE TABLE offers (
    image     INTEGER NOT NULL REFERENCES entries (id),
    alternate INTEGER NOT NULL REFERENCES entries (id),
    rank      INTEGER NOT NULL CHECK (rank >= 0),
    PRIMARY KEY (image, alternate)
) STRICT, WITHOUT ROWID;

CREATE INDEX offers_of ON offers (alternate);

INSERT INTO offers (image, alternate, rank)
    SELECT primary_entry, id, rank FROM entries WHERE state = 'alternate';
