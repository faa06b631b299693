-- The log is kept for a time (`ledger.log_keep_ms`). What is older is removed from its beginning, which is noted first: up to which
-- position, and the latest time of what was removed. 0: nothing was. Nothing else is ever deleted. The last rows of a tenant stay.

ALTER TABLE tenants ADD COLUMN events_removed BIGINT NOT NULL DEFAULT 0 CHECK (events_removed >= 0);
ALTER TABLE tenants ADD COLUMN commits_removed BIGINT NOT NULL DEFAULT 0 CHECK (commits_removed >= 0);
ALTER TABLE tenants ADD COLUMN log_removed_ms BIGINT NOT NULL DEFAULT 0;

CREATE FUNCTION only_the_beginning_is_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    removed BIGINT;
BEGIN
    IF TG_TABLE_NAME = 'events' THEN
        SELECT events_removed INTO removed FROM tenants WHERE id = OLD.tenant;
    ELSE
        SELECT commits_removed INTO removed FROM tenants WHERE id = OLD.tenant;
    END IF;
    IF OLD.seq > removed THEN
        RAISE EXCEPTION 'the log is never deleted but from its beginning, as its tenant notes';
    END IF;
    RETURN OLD;
END $$;

DROP TRIGGER facts_are_not_changed ON events;
CREATE TRIGGER events_are_not_changed BEFORE UPDATE ON events
    FOR EACH ROW EXECUTE FUNCTION facts_are_never_changed();
CREATE TRIGGER events_are_not_deleted BEFORE DELETE ON events
    FOR EACH ROW EXECUTE FUNCTION only_the_beginning_is_deleted();

DROP TRIGGER commits_are_not_changed ON commits;
CREATE TRIGGER commits_are_not_changed BEFORE UPDATE ON commits
    FOR EACH ROW EXECUTE FUNCTION facts_are_never_changed();
CREATE TRIGGER commits_are_not_deleted BEFORE DELETE ON commits
    FOR EACH ROW EXECUTE FUNCTION only_the_beginning_is_deleted();
