-- The log is kept for a time (`ledger.log_keep_ms`). What is older is removed from its beginning, which is noted first: up to which
-- position, and the latest time of what was removed. 0: nothing was. Nothing else is ever deleted. The last rows of a tenant stay,
-- so that positions go on after them and none is given twice.

ALTER TABLE tenants ADD COLUMN events_removed INTEGER NOT NULL DEFAULT 0 CHECK (events_removed >= 0);
ALTER TABLE tenants ADD COLUMN commits_removed INTEGER NOT NULL DEFAULT 0 CHECK (commits_removed >= 0);
ALTER TABLE tenants ADD COLUMN log_removed_ms INTEGER NOT NULL DEFAULT 0;

DROP TRIGGER events_are_not_deleted;
CREATE TRIGGER events_are_not_deleted BEFORE DELETE ON events
WHEN OLD.seq > (SELECT events_removed FROM tenants WHERE id = OLD.tenant)
BEGIN
    SELECT RAISE(ABORT, 'events are never deleted but from the beginning of the log, as tenants.events_removed notes');
END;

DROP TRIGGER commits_are_not_deleted;
CREATE TRIGGER commits_are_not_deleted BEFORE DELETE ON commits
WHEN OLD.seq > (SELECT commits_removed FROM tenants WHERE id = OLD.tenant)
BEGIN
    SELECT RAISE(ABORT, 'nothing of the log is ever deleted but its beginning, as tenants.commits_removed notes');
END;

INSERT INTO migrations (format, reader_min, writer_min) VALUES (10, 10, 10);
